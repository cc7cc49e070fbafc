"""The other side of bench_influence.py: torch scripts that print one RESULT line."""

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np

MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
"""Freed memory stays in the process: large arrays are not faulted in again."""

EXPORT = """
import sys
import common, numpy
common.make_model().save_pretrained(sys.argv[1])
for name, ids in zip(("train", "query"), common.make_data()):
    numpy.save(f"{sys.argv[1]}/{name}.npy", ids.numpy().astype("int32"))
"""


class Peer(NamedTuple):
    """A script, what it is called in the table, and what of ours it stands against."""

    label: str
    command: tuple[str, ...]
    row: str  # of bench_influence_rows
    slow: bool = False  # takes minutes; run with --slow
    compared: bool = True  # whether its scores are to agree


HVP = str(Path(__file__).with_name("bench_influence_torch_hvp.py").resolve())
PEERS = (
    Peer("torch training step", ("torch_floor.py", "16"), "units"),
    Peer("torch floor", ("torch_floor.py", "16", "frozen"), "units"),
    Peer("torch hooks", ("torch_hooks_graddot.py", "16"), "products_blocks"),
    Peer("bergson", ("bergson_bench.py", "graddot", "2048"), "products_blocks"),
    Peer(
        "torch.func",
        ("torch_func_graddot.py", "8", "blocks_wb", "sdpa"),
        "products_blocks",
    ),
    Peer("kronfluence", ("kronfluence_bench.py", "identity", "16"), "products_blocks"),
    Peer("dattri", ("dattri_bench.py", "graddot", "16"), "products_blocks", slow=True),
    Peer("torch.func", ("torch_func_graddot.py", "8", "all", "sdpa"), "products_all"),
    Peer("bergson", ("bergson_bench.py", "ekfac", "2048"), "ekfac_blocks"),
    Peer("kronfluence", ("kronfluence_bench.py", "ekfac", "16"), "ekfac_blocks"),
    Peer("bergson", ("bergson_bench.py", "build", "2048", "16"), "index_build"),
    Peer(
        "dattri LoGra",
        ("dattri_bench.py", "logra", "16"),
        "index_query",
        slow=True,
        compared=False,  # other projections, other damping
    ),
    Peer("torch double backward", (HVP, "16"), "hvp", compared=False),
)


class Timing(NamedTuple):
    """What one process measured, CPU seconds."""

    warm: float
    first: float
    imported: float
    rss_mb: float
    scores: np.ndarray | None


def environment(core: int | None, **more: str) -> dict:
    """Return how every process of either side is started."""

    def pin():
        if core is not None:
            os.sched_setaffinity(0, {core})

    return {
        "env": {**os.environ, **MALLOC, "BENCH_THREADS": "1", **more},
        "preexec_fn": pin,
        "text": True,
        "capture_output": True,
    }


def export(python: str, baselines: Path, target: Path) -> None:
    """Write the peers' weights and tokens where our side can read them."""
    target.mkdir(parents=True)
    command = [python, "-c", EXPORT, str(target)]
    finish(subprocess.run(command, **peer_environment(baselines, target, None, 0)))


def peer_environment(baselines: Path, out: Path, core: int | None, reps: int) -> dict:
    """Return how a peer's process is started."""
    return environment(
        core,
        BENCH_OUT=str(out),
        BENCH_REPS=str(reps),
        PYTHONPATH=str(baselines),
        PYTHONDONTWRITEBYTECODE="1",
    )


def finish(done: subprocess.CompletedProcess) -> str:
    """Return what a process printed, or raise with the end of its complaint."""
    if done.returncode:
        raise RuntimeError(f"{done.args} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def result_of(printed: str) -> dict:
    """Return the JSON of the RESULT line."""
    lines = [x for x in printed.splitlines() if x.startswith("RESULT ")]
    if not lines:
        raise RuntimeError(f"no RESULT line in:\n{printed[-3000:]}")
    return json.loads(lines[-1].removeprefix("RESULT "))


def run_peer(
    peer: Peer, python: str, baselines: Path, out: Path, core: int | None, reps: int
) -> Timing:
    """Run one peer once; its best of ``reps`` warm calls.

    Where a peer fits factors before it scores, both count.
    """
    script = baselines / peer.command[0]  # an absolute path stays itself
    options = peer_environment(baselines, out, core, reps)
    command = [python, str(script), *peer.command[1:]]
    result = result_of(finish(subprocess.run(command, **options)))
    phases = result["phases"]
    factors = phases.get("factors_cpu", 0.0)
    stored = out / f"{result['name']}.npy"
    return Timing(
        warm=phases["score_warm_cpu"] + factors,
        first=phases["score_cold"] + factors,
        imported=phases["import_cpu"],
        rss_mb=result["maxrss_mb"],
        scores=np.load(stored) if stored.exists() else None,
    )
