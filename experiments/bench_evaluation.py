"""What evaluation costs: retraining together against alone, statistics against losses.

    python experiments/bench_evaluation.py

Prints ratios of CPU seconds, the two sides in turn, the best of three each, after one
call that compiles. Machine and versions are printed with them.

On two busy CPU cores (Python 3.11.7, jax 0.10.2) it printed, in a minute:

    width 64, 2 layers: 8 retrainings together take 1.18 of one by one; token
    statistics 1.85 of the losses alone
    width 256, 4 layers: 8 retrainings together take 0.96 of one by one; token
    statistics 1.06 of the losses alone

So on a CPU nothing is gained by training together; it is meant for an accelerator that
one small model leaves idle, and was not measured on one.
"""

import time
from collections.abc import Callable

import jax
import numpy as np

from jaxunlearn.data import in_order, record_text, tokenize, train_tokenizer
from jaxunlearn.data.synthetic.made_up import people, question_answers
from jaxunlearn.evaluation.retrained.retraining import TrainingParts, retrain
from jaxunlearn.evaluation.text.token_pass import token_statistics
from jaxunlearn.models import GPT2, GPT2Config
from jaxunlearn.provenance import versions
from jaxunlearn.training import Recipe, example_losses

SEEDS = 8
REPEATS = 3


def main() -> None:
    records = question_answers(people(20, seed=0), questions_per_person=10, seed=0)
    tokenizer = train_tokenizer(map(record_text, records), vocab_size=1024)
    data = tokenize(records, tokenizer, max_length=64)
    print(", ".join(f"{k} {v}" for k, v in versions().items()))
    for width, layers in ((64, 2), (256, 4)):
        model = GPT2(
            GPT2Config(
                vocab_size=1024,
                n_positions=64,
                n_embd=width,
                n_layer=layers,
                n_head=4,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
            )
        )
        start = model.init(key=jax.random.key(0))
        recipe = Recipe(epochs=1, batch_size=8, learning_rate=1e-3)
        parts = TrainingParts(model, recipe, data, start)

        def retrained(group: int, parts: TrainingParts = parts) -> None:
            for _, params in retrain(parts, range(10), range(SEEDS), group=group):
                jax.block_until_ready(params)

        together, alone = in_turn(lambda: retrained(SEEDS), lambda: retrained(1))

        def statistics(model: GPT2 = model, params=start) -> None:
            token_statistics(model, params, in_order(data, batch_size=16))

        def losses(model: GPT2 = model, params=start) -> None:
            example_losses(
                model.per_example_loss, params, in_order(data, batch_size=16)
            )

        measured, plain = in_turn(statistics, losses)
        print(
            f"width {width}, {layers} layers: {SEEDS} retrainings together take "
            f"{together / alone:.2f} of one by one; token statistics "
            f"{measured / plain:.2f} of the losses alone"
        )


def in_turn(*sides: Callable[[], None]) -> list[float]:
    """Return the least CPU seconds of each side, run in turn."""
    found: list[list[float]] = [[] for _ in sides]
    for repeat in range(REPEATS + 1):
        for seconds, side in zip(found, sides, strict=True):
            start = time.process_time()
            side()
            if repeat:  # the first compiles
                seconds.append(time.process_time() - start)
    return [float(np.min(seconds)) for seconds in found]


if __name__ == "__main__":
    main()
