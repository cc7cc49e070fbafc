"""What storing every example's gradient costs, against a plain epoch.

Command:  python experiments/bench_recorder.py
Machine:  2 cores of an AMD EPYC, which other work kept busy (load 4 to 5)
Time:     4 minutes

Both programs train the same model on the same random tokens (half to full length, every
token labelled, which is the dearest case). They take turns, an epoch each, after a
warm-up; an epoch of the storing side includes writing its files. The ratio is the
median over the rounds; CPU seconds mind the other load less than wall seconds.

python 3.11.7, jax and jaxlib 0.10.2, flax 0.12.8, optax 0.2.8, numpy 2.4.6

plain: 21.37 Gflop a step (1.00 of plain), 426 MB temporary (1.00)
layers=wte: 22.09 Gflop a step (1.03 of plain), 425 MB temporary (1.00)
layers=.: 2.43 Gflop a step (0.11 of plain), 67 MB temporary (0.16)

layers  dtype     CPU s plain/stored  ratio  wall s plain/stored  ratio  MB
wte     float32       5.28 /   6.33    1.18     8.30 /   9.37    1.12   20.9
.       float32       5.47 /   7.34    1.27     5.68 /   7.48    1.29  838.2

XLA counts the body of a loop once. With other leaves than the embedding the step loops
over the examples, so that its flops here are those of one example in 16.
"""

import argparse
import dataclasses
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from jaxunlearn.data import Example, TokenizedData
from jaxunlearn.models.gpt2 import GPT2, GPT2Config
from jaxunlearn.provenance import versions
from jaxunlearn.training import Recipe, Recording, gradient_store
from jaxunlearn.training.loop import most_labels
from jaxunlearn.training.recipe import (
    batch_at,
    compiled_step,
    initial_state,
    optimizer,
    steps_per_epoch,
    update_weights,
)
from jaxunlearn.training.recorder import make_recording_step


@dataclasses.dataclass(frozen=True)
class Cost:
    """One epoch's."""

    wall: float
    cpu: float
    stored: int  # bytes


def main() -> None:
    options = parse_arguments()
    config = GPT2Config(
        vocab_size=options.vocab,
        n_positions=options.length,
        n_embd=options.width,
        n_layer=options.blocks,
        n_head=options.heads,
        resid_pdrop=options.dropout,
        embd_pdrop=options.dropout,
        attn_pdrop=options.dropout,
        dtype=options.compute,
    )
    model = GPT2(config)
    params = model.init(key=jax.random.key(0))
    recipe = Recipe(
        epochs=1,
        batch_size=options.batch_size,
        microbatch_size=options.microbatch_size,
    )
    data = random_data(options)
    steps = steps_per_epoch(recipe, len(data.examples))
    print(versions())
    print(vars(options))
    fresh = jax.jit(
        lambda p: initial_state(jax.tree.map(lambda x: x + 0, p), optimizer(recipe, 1))
    )
    batch = batch_at(recipe, data, 0)
    plain = compiled_step(model, recipe, steps).lower(fresh(params), batch).compile()
    print_program("plain", plain, plain)

    rows = []
    for pattern in options.layers:
        recording = Recording(
            layers=pattern, dtype=options.dtype, head_entries=options.entries
        )
        step = jax.jit(
            make_recording_step(
                model,
                recipe,
                optimizer(recipe, steps),
                pattern,
                head_entries=recording.head_entries,
                label_slots=most_labels(data),
            ),
            donate_argnums=0,
        )
        stored = step.lower(fresh(params), batch).compile()
        print_program(f"layers={pattern}", stored, plain)

        def epoch(program, recording):
            return one_epoch(program, recording, fresh(params), recipe, data)

        epoch(plain, None)
        epoch(stored, recording)
        turns = [
            (epoch(plain, None), epoch(stored, recording))
            for _ in range(options.rounds)
        ]
        rows.append(table_row(pattern, options.dtype, turns))
    print()
    print("layers  dtype     CPU s plain/stored  ratio  wall s plain/stored  ratio  MB")
    print("\n".join(rows))


def one_epoch(program, recording: Recording | None, state, recipe, data) -> Cost:
    """Train one epoch, storing its gradients where ``recording`` says so."""
    folder = Path(tempfile.mkdtemp())
    total = steps_per_epoch(recipe, len(data.examples))
    jax.block_until_ready(state)
    wall, cpu = time.perf_counter(), time.process_time()
    for step in range(total):
        batch = batch_at(recipe, data, step)
        state, metrics, *examples = program(state, batch)
        if recording is not None:
            gradient_store.write_step(
                folder,
                examples[0],
                update_weights(recipe, batch, step, total),
                epoch=1,
                step=step,
                dtype=recording.dtype,
            )
        float(metrics.loss)
    jax.block_until_ready(state)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    stored = sum(file.stat().st_size for file in folder.iterdir())
    shutil.rmtree(folder)
    return Cost(wall, cpu, stored)


def random_data(options) -> TokenizedData:
    """Return random tokens, half to full length."""
    rng = np.random.default_rng(0)
    examples = []
    for i in range(options.examples):
        size = (
            options.length
            if i == 0
            else rng.integers(options.length // 2, options.length + 1)
        )
        ids = rng.integers(options.vocab, size=size).astype(np.int32)
        examples.append(Example(ids, ids, i))
    return TokenizedData(tuple(examples), 0, 0)


def print_program(name: str, program, plain) -> None:
    """Print what XLA says of a program."""

    def numbers(p):
        return p.cost_analysis()["flops"], p.memory_analysis().temp_size_in_bytes

    flops, temporary = numbers(program)
    plain_flops, plain_temporary = numbers(plain)
    print(
        f"{name}: {flops / 1e9:.2f} Gflop a step ({flops / plain_flops:.2f} of plain), "
        f"{temporary / 1e6:.0f} MB temporary ({temporary / plain_temporary:.2f})"
    )


def table_row(pattern: str, dtype: str, turns: list[tuple[Cost, Cost]]) -> str:
    """Return a line of medians."""

    def median(of):
        return statistics.median(of(*turn) for turn in turns)

    return (
        f"{pattern:7} {dtype:9}"
        f" {median(lambda a, b: a.cpu):8.2f} / {median(lambda a, b: b.cpu):6.2f}"
        f" {median(lambda a, b: b.cpu / a.cpu):7.2f}"
        f" {median(lambda a, b: a.wall):8.2f} / {median(lambda a, b: b.wall):6.2f}"
        f" {median(lambda a, b: b.wall / a.wall):7.2f}"
        f" {turns[0][1].stored / 1e6:6.1f}"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=5000)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--compute", default=None, help="dtype of the computation")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--microbatch-size", type=int, default=None)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--layers", nargs="+", default=["wte", "."])
    parser.add_argument("--dtype", default="float32", help="dtype of what is stored")
    parser.add_argument("--entries", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
