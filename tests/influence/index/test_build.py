import inspect
import resource
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients.projections.projection import Block, Projection
from jaxunlearn.influence.index.build import build_index
from jaxunlearn.influence.index.description import open_index
from jaxunlearn.influence.index.encoding import decode, encode
from jaxunlearn.influence.index.reading import read_rows, stored_ids

LAYOUT = (Block("a", 0, 8), Block("b", 8, 8), Block("c", 16, 3))
WIDTH = 19
ROWS = np.random.default_rng(0).standard_normal((40, WIDTH)).astype(np.float32)


def batches_of(rows, ids, size=6):
    """Batches of one size, the last filled up with padding (whose rows are NaN)."""
    count = -(-len(ids) // size) * size
    index = np.full(count, -1, np.int32)
    index[: len(ids)] = ids
    padded = np.full((count, rows.shape[1]), np.nan, np.float32)
    padded[: len(ids)] = rows
    return [
        {"index": index[i : i + size], "rows": padded[i : i + size]}
        for i in range(0, count, size)
    ]


def build(directory, rows=ROWS, ids=None, *, row_function=None, size=6, **options):
    ids = np.arange(len(rows)) if ids is None else ids
    return build_index(
        directory,
        row_function or (lambda batch: batch["rows"]),
        batches_of(rows, ids, size),
        **{
            "model_hash": "model",
            "data_hash": "data",
            "projection": Projection(seed=3),
            "layout": LAYOUT,
            "chunk_rows": 8,
            **options,
        },
    )


def contents(directory):
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("dtype", ["int8", "bfloat16", "float32"])
def test_what_was_built_is_read(tmp_path, dtype):
    ids = np.random.default_rng(1).permutation(1000)[:40].astype(np.int32)
    seen = []
    built = build(
        tmp_path, ids=ids, dtype=dtype, progress=lambda *state: seen.append(state)
    )
    index = open_index(tmp_path, model_hash="model", projection=Projection(seed=3))
    assert index == built
    assert (index.rows, index.complete, index.layout) == (40, True, LAYOUT)
    assert np.array_equal(stored_ids(index), ids)
    assert seen == [(n, 40) for n in (8, 16, 24, 32, 40)]
    once = encode(jnp.asarray(ROWS), LAYOUT, dtype)
    expected = decode(once.rows, once.scales, LAYOUT)
    assert np.array_equal(read_rows(index, np.arange(40)), expected)
    assert np.array_equal(read_rows(index, [7, 3, 3]), expected[jnp.array([7, 3, 3])])


def test_the_result_does_not_depend_on_the_batches(tmp_path):
    build(tmp_path / "one", size=6)
    build(tmp_path / "two", size=40)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_stopped_build_goes_on_and_computes_nothing_again(tmp_path):
    computed = []

    def row_function(batch, *, stop_at):
        if stop_at in batch["index"]:
            raise KeyboardInterrupt
        computed.extend(batch["index"].tolist())
        return batch["rows"]

    def start(stop_at):
        return build(
            tmp_path / "cut", row_function=lambda b: row_function(b, stop_at=stop_at)
        )

    for stop_at in (1, 25, 26, 38):
        with pytest.raises(KeyboardInterrupt):
            start(stop_at)
        with pytest.raises(ValueError, match="unfinished build: run build_index again"):
            open_index(tmp_path / "cut", model_hash="model")
        partial = open_index(tmp_path / "cut", model_hash=None, allow_partial=True)
        assert partial.rows % 8 == 0
        assert np.array_equal(stored_ids(partial), np.arange(partial.rows))
        computed.clear()
    held = partial.rows
    assert held == 24
    start(None)
    assert set(range(held)).isdisjoint(set(computed) - set(range(24, 30)))
    build(tmp_path / "whole")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    computed.clear()
    start(None)
    assert computed == []


def build_6000(directory, progress=None):
    def row_function(batch):
        rng = np.random.default_rng(batch["index"][0])
        return rng.standard_normal((50, 400)).astype(np.float32)

    return build_index(
        directory,
        row_function,
        [{"index": np.arange(i, i + 50)} for i in range(0, 6000, 50)],
        model_hash="model",
        data_hash="data",
        projection=Projection(),
        layout=[Block("a", 0, 400)],
        chunk_rows=64,
        progress=progress,
    )


# Builds start over and over, each in a process of its own, and are killed some time
# after their first chunk. Forked, because importing takes longer than building.
KILLER = """
import os, signal, sys, time
import numpy as np
from jaxunlearn.gradients.projections.projection import Block, Projection
from jaxunlearn.influence.index.build import build_index

{source}
for delay in (0.0, 0.003, 0.011, 0.023, 0.037):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        build_6000(sys.argv[1], lambda *_: os.write(writing, b"."))
        os._exit(0)
    os.close(writing)  # so that reading ends if the child fails
    os.read(reading, 1)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]))
"""


def test_a_killed_build_goes_on_without_loss_or_duplicate(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    script = KILLER.format(source=inspect.getsource(build_6000))
    done = subprocess.run(
        [sys.executable, "-c", script, str(killed)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.split() == [str(int(signal.SIGKILL))] * 5, done.stderr
    held = open_index(killed, model_hash=None, allow_partial=True)
    assert 5 * 64 <= held.rows < 6000
    build_6000(killed)
    build_6000(whole)
    index = open_index(killed, model_hash="model")
    assert np.array_equal(stored_ids(index), np.arange(6000))
    assert contents(killed) == contents(whole)


def test_a_full_disk_keeps_what_is_there_and_says_how_to_go_on(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def row_function(batch):
        if 20 in batch["index"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (16, limit[1]))
        return batch["rows"]

    try:
        with pytest.raises(OSError, match="keeps its first 8 rows: make room, and"):
            build(tmp_path / "full", row_function=row_function)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    build(tmp_path / "full")
    build(tmp_path / "whole")
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


def test_rows_of_other_data_are_appended(tmp_path):
    build(tmp_path, ROWS[:21])
    with pytest.raises(ValueError, match=r"data_hash is 'data', not 'more'.*append=Tr"):
        build(tmp_path, ROWS[21:], np.arange(21, 40), data_hash="more")
    with pytest.raises(ValueError, match=r"1 ids come twice .* such as \[20\]"):
        build(tmp_path, ROWS[20:], np.arange(20, 40), data_hash="more", append=True)

    def killed(batch):
        if 33 in batch["index"]:
            raise KeyboardInterrupt
        return batch["rows"]

    options = {"data_hash": "more", "append": True}
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, ROWS[21:], np.arange(21, 40), row_function=killed, **options)
    with pytest.raises(ValueError, match="finish that build first"):
        build(tmp_path, ROWS[:5], np.arange(50, 55), data_hash="third", append=True)
    seen = []
    options["progress"] = lambda done, total: seen.append((done, total))
    build(tmp_path, ROWS[21:], np.arange(21, 40), **options)
    # It had stopped at 24, where the first data set's last chunk file was full.
    assert seen == [(32, 40), (40, 40)]
    index = open_index(tmp_path, model_hash="model")
    assert [(p.data_hash, p.start) for p in index.parts] == [("data", 0), ("more", 21)]
    build(tmp_path / "apart")
    apart = open_index(tmp_path / "apart", model_hash="model")
    assert np.array_equal(stored_ids(index), np.arange(40))
    everything = np.arange(40)
    assert np.array_equal(read_rows(index, everything), read_rows(apart, everything))


def test_bad_rows_are_refused_by_name(tmp_path):
    spoiled = ROWS.copy()
    spoiled[30, 4] = np.inf
    with pytest.raises(ValueError, match="row of example 30 is not finite"):
        build(tmp_path / "inf", spoiled)
    held = open_index(tmp_path / "inf", model_hash="model", allow_partial=True)
    assert held.rows == 24
    with pytest.raises(ValueError, match="rows of 18 numbers, the layout has 19"):
        build(tmp_path / "narrow", ROWS[:, 1:])
    with pytest.raises(ValueError, match=r"shape \(19,\) for a batch of 6"):
        build(tmp_path / "flat", row_function=lambda batch: batch["rows"][0])


def test_bad_arguments_are_refused_before_anything_is_computed(tmp_path):
    def never(batch):
        raise AssertionError(batch)

    def refused(message, **options):
        target = tmp_path / "never"
        with pytest.raises(ValueError, match=message):
            build(target, row_function=never, **options)
        assert (
            not (target / "index.json").exists()
            or open_index(target, model_hash=None, allow_partial=True).rows == 0
        )

    refused("dtype='int4': one of int8, bfloat16, float32", dtype="int4")
    refused("chunk_rows=0: must be at least 1", chunk_rows=0)
    refused("does not begin at 8", layout=[Block("a", 0, 8), Block("b", 9, 10)])
    refused("needs at least one block", layout=[])
    refused("hold no example", rows=ROWS[:0])
    refused(r"1 ids come twice .* such as \[2\]", rows=ROWS[:3], ids=[1, 2, 2])
    options = {
        "model_hash": "",
        "data_hash": "",
        "projection": Projection(),
        "layout": LAYOUT,
    }
    with pytest.raises(ValueError, match="iterated only once: give a list"):
        build_index(tmp_path, never, iter([]), **options)
    with pytest.raises(ValueError, match=r"has only rows: add index"):
        build_index(tmp_path, never, [{"rows": ROWS}], **options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds other files \(thesis.txt\)"):
        build(tmp_path / "mine")
