"""The influence engine beside the torch libraries, on one core.

Command:  python experiments/bench_influence.py --baselines DIR --peers PYTHON
              --core 1 --rounds 1 --repeats 2
          python experiments/bench_influence.py --analysis
Machine:  2 cores of an AMD EPYC, which other work kept busy (load 7 to 12)
Time:     40 minutes there (about 15 of CPU time); the analysis 1 minute

GPT-2 of 4 layers and width 256, vocabulary 5,000; 64 training and 16 query sequences of
128 tokens; the loss of an example is the sum of its next-token cross-entropies. DIR
holds the torch scripts, PYTHON is the interpreter of an environment in which they run;
without them our rows and units are timed alone, on random weights of our own.

Both sides run in turn, each in a process of its own, pinned to one core, with the same
settings of the C library's allocator. Times are CPU seconds of a warm call, the best
of all rounds. In every process of ours a training step and the floor (a forward pass
and a backward pass of activations only) are timed in turn with the row, so that the
ratios are of the same minutes.

python 3.11.7, jax and jaxlib 0.10.2, flax 0.12.8, numpy 2.4.6; torch 2.13.0 (CPU),
bergson 2.5.1, kronfluence 1.0.1. One round; the library was still being changed while
it ran. HVP from two rounds later, at load 4. Seconds and resident MB, ours / theirs:

products_blocks  4.40,  890  hooks 5.04, 1398   0.87   bergson 5.23, 1923      0.84
                             torch.func 5.27    0.84   kronfluence 5.99, 1242  0.73
products_all     4.92, 1198  torch.func 5.70, 1886  0.86
ekfac_blocks    10.84, 1650  bergson 25.90, 2020  0.42  kronfluence 32.36, 1385  0.33
index_build      2.45,  689  bergson 2.82, 1368   0.87 (two rounds, later)
hvp             11.76,  965  torch double backward 12.48, 2134  0.94

Of a training step: direction 0.75, products_blocks 0.82 (1.17 floors), products_all
0.96, index_build 0.64 (of 64 sequences), index_query 0.78, hvp 2.44, fisher_diagonal
0.87. Torch's own step and floor, in a run of one repeat: 3.99 and 3.47, ours 4.87 and
3.15, so that a ratio to torch's step would be up to a quarter larger.
Agreement: products 3.3e-7 (hooks, bergson), 9.7e-5 (torch.func, all parameters);
EK-FAC correlation 0.99999 with bergson, 0.99961 with kronfluence.
Index: 4,539 bytes a row in int8 (float32 17,463), rank correlation 0.9997.

Missed: EK-FAC's resident peak (1.19 of
kronfluence's) and its first call (10.7 s beyond a warm one, limit 6), as those of hvp
(10.6), index_query (9.4) and direction (6.1, with compiling the direction's gradient);
index row of 4 KB. Not run: dattri (--slow), forget_query, ekfac_all, any GPU.

GPT-2 124M by shapes, B=8, T=512: flops of products and temporary bytes of a step's:
direction 0.91, 0.31; products_blocks 0.91, 1.02; products_all 1.00, 1.23; index row
0.73, 0.97; hvp 3.00, 1.98; fisher_diagonal 1.09, 0.98; floor 0.72, 0.90.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_influence_peers import (
    PEERS,
    environment,
    export,
    finish,
    result_of,
    run_peer,
)


def main() -> None:
    options = parse_arguments()
    if options.row:
        run_row(options)
    elif options.analysis:
        from bench_influence_analysis import print_analysis

        print_analysis()
    elif options.gpu:
        from bench_influence_analysis import print_accelerator

        print_accelerator(options.peak_tflops, options.rounds, options.batch_size)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Run both sides in turn and print the tables."""
    from bench_influence_table import print_tables

    from jaxunlearn.files import write_json
    from jaxunlearn.provenance import versions

    if (options.peers is None) != (options.baselines is None):
        raise ValueError("--peers and --baselines belong together: give both or none")
    peers = [p for p in PEERS if options.peers and (options.slow or not p.slow)]
    names = options.only or row_names()
    found: dict[str, list] = {}
    with tempfile.TemporaryDirectory() as folder:
        fixture, out = Path(folder) / "fixture", Path(folder) / "out"
        out.mkdir()
        if options.peers:
            export(options.peers, options.baselines, fixture)
        else:
            own_fixture(fixture)
        for turn in range(options.rounds):
            for name in names:
                say(f"round {turn + 1} of {options.rounds}: {name}")
                ours = subprocess.run(
                    own_command(name, fixture, out, options.repeats),
                    **environment(options.core),
                )
                found.setdefault(name, []).append(result_of(finish(ours)))
                say(f"  {found[name][-1]}")
                for peer in peers:
                    if peer.row == name:
                        say(f"  {peer.label}: {' '.join(peer.command)}")
                        timing = run_peer(
                            peer,
                            options.peers,
                            options.baselines,
                            out,
                            options.core,
                            options.repeats,
                        )
                        key = f"{name}/{peer.label}"
                        found.setdefault(key, []).append(timing._asdict())
                        say(f"    {timing.warm:.2f} s")
        scores = {
            name: np.load(file)
            for name in names
            if (file := out / f"ours_{name}.npy").exists()
        }
    imported = import_seconds(options.core)
    rows = {name: best_of(turns) for name, turns in found.items()}
    print(json.dumps(versions()))
    report = print_tables(rows, scores, imported)
    if options.out:
        write_json(options.out, {"versions": versions(), "rows": report})


def run_row(options: argparse.Namespace) -> None:
    """Time one of our rows in this process and print one RESULT line."""
    from bench_influence_fixture import Fixture
    from bench_influence_rows import ROWS, UNITS

    from jaxunlearn.models import load_pretrained

    imported = time.process_time()
    model, params = load_pretrained(options.fixture)
    tokens = (np.load(options.fixture / f"{n}.npy") for n in ("train", "query"))
    fixture = Fixture(model, params, *tokens)
    start = time.process_time()
    row = ROWS[options.row](fixture)
    row()
    first = time.process_time() - start
    warm = [seconds(row)[0]]
    # Before the units are compiled in this process too.
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    units = {name: make(fixture) for name, make in UNITS.items()}
    for unit in units.values():
        unit()
    times: dict[str, list[float]] = {name: [] for name in units}
    for _ in range(options.repeats):
        for name, unit in units.items():
            times[name].append(seconds(unit)[0])
        spent, found = seconds(row)
        warm.append(spent)
    for name in ("scores", "summed"):
        if name in found:
            np.save(options.out / f"ours_{options.row}.npy", found[name])
    result = {"warm": min(warm), "first": first, "imported": imported}
    result |= {"rss_mb": rss_mb} | {name: min(t) for name, t in times.items()}
    result["quality"] = row.quality() if hasattr(row, "quality") else {}
    print("RESULT " + json.dumps(result))


def seconds(function) -> tuple[float, dict]:
    """Return the CPU seconds of a call, and what it returned."""
    start = time.process_time()
    found = function()
    return time.process_time() - start, found


def best_of(turns: list[dict]) -> dict:
    """Return the least of each number over the rounds."""
    best = dict(turns[-1])
    for name in ("warm", "first", "imported", "rss_mb", "step", "floor"):
        if name in best:
            best[name] = min(turn[name] for turn in turns)
    return best


def own_command(name: str, fixture: Path, out: Path, repeats: int) -> list[str]:
    return [
        *(sys.executable, __file__, "--row", name, "--fixture", str(fixture)),
        *("--out", str(out), "--repeats", str(repeats)),
    ]


def own_fixture(folder: Path) -> None:
    """Write random weights and Zipf tokens without torch."""
    import jax

    from jaxunlearn.models import GPT2, GPT2Config, save_pretrained

    config = GPT2Config(
        vocab_size=5000, n_positions=128, n_embd=256, n_layer=4, n_head=4
    )
    model = GPT2(config)
    save_pretrained(model, model.init(key=jax.random.key(0)), folder)
    share = 1.0 / np.arange(1, 5001)
    rng = np.random.default_rng(1)
    for name, size in (("train", 64), ("query", 16)):
        ids = rng.choice(5000, size=(size, 128), p=share / share.sum())
        np.save(folder / f"{name}.npy", ids.astype(np.int32))


def import_seconds(core: int | None) -> float:
    """Return the CPU seconds that `import jaxunlearn` takes, without Python's start."""
    code = (
        "import time; a = time.process_time(); import jaxunlearn; "
        "print(time.process_time() - a)"
    )
    command = [sys.executable, "-c", code]
    return min(
        float(finish(subprocess.run(command, **environment(core)))) for _ in range(3)
    )


def row_names() -> list[str]:
    from bench_influence_rows import ROWS

    return list(ROWS)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def names_list(text: str) -> list[str]:
    known, names = row_names(), text.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no such row: {', '.join(unknown)}; there are {', '.join(known)}"
        )
    return names


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", help="Python of the torch libraries' environment")
    parser.add_argument("--baselines", type=Path, help="folder of the torch scripts")
    parser.add_argument("--only", type=names_list, help="rows, separated by commas")
    parser.add_argument("--slow", action="store_true", help="peers of minutes as well")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="warm calls a process")
    parser.add_argument("--core", type=int, default=None, help="core to pin to")
    parser.add_argument("--out", type=Path, help="JSON file of all numbers")
    parser.add_argument(
        "--analysis", action="store_true", help="XLA's flops and bytes at GPT-2's size"
    )
    parser.add_argument("--gpu", action="store_true", help="GPT-2 on this accelerator")
    parser.add_argument("--peak-tflops", type=float, help="of the chip, for --gpu")
    parser.add_argument("--batch-size", type=int, default=32, help="for --gpu")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--fixture", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
