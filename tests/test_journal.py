"""What is finished is read back; what is torn, damaged or of other work is not."""

import json
import subprocess
import sys

import numpy as np
import pytest

from jaxunlearn import files, journal

WORK = {"work": "sum", "description": "sum.json"}
REMEDY = "delete it"


def test_finished_parts_are_read_back_by_a_later_process(tmp_path):
    folder = tmp_path / "deep" / "state"
    opened = journal.open_journal(folder, {"data": "abc", "shape": (2, 3)}, **WORK)
    assert opened.read("part-0") is None
    opened.write("part-0", {"x": np.arange(3)})
    again = journal.open_journal(folder, {"shape": [2, 3], "data": "abc"}, **WORK)
    np.testing.assert_array_equal(again.read("part-0")["x"], np.arange(3))
    assert again.read("part-1") is None


def test_other_work_is_refused_by_what_differs(tmp_path):
    journal.open_journal(tmp_path, {"data": "abc", "rate": 1, "gone": 0}, **WORK)
    other = {"data": "abd", "rate": 1.0, "new": [1]}
    with pytest.raises(ValueError, match=r"its data, gone, new differ"):
        journal.open_journal(tmp_path, other, **WORK)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds no sum \(sum\.json is missing\)"):
        journal.open_journal(tmp_path, {}, **WORK)
    with pytest.raises(ValueError, match="holds no sum"):
        journal.open_journal(tmp_path / "letter.txt", {}, **WORK)
    assert journal.foreign(tmp_path) == ["letter.txt"]


def test_a_writer_that_is_killed_leaves_no_part_and_its_rest_is_swept(tmp_path):
    journal.open_journal(tmp_path, {}, **WORK)
    killed = (
        "import os, sys; from pathlib import Path; from jaxunlearn import files\n"
        "def torn(path): path.write_bytes(b'PK'); os._exit(1)\n"
        "files.write_whole(Path(sys.argv[1]) / 'part.npz', torn)"
    )
    subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False)
    assert len(list(tmp_path.glob(f"{files.WRITING}*"))) == 1
    opened = journal.open_journal(tmp_path, {}, **WORK)
    assert opened.read("part") is None
    assert [path.name for path in tmp_path.iterdir()] == ["sum.json"]


def test_every_cut_part_is_refused(tmp_path):
    opened = journal.open_journal(tmp_path, {}, **WORK)
    opened.write("part", {"x": np.arange(3)})
    path = tmp_path / "part.npz"
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="part.npz is damaged"):
            opened.read("part")


def test_a_description_of_an_earlier_version_is_read_with_a_warning(tmp_path):
    from jaxunlearn.sealed import UncheckedWarning

    (tmp_path / "sum.json").write_text('{"data": "abc"}')
    with pytest.warns(UncheckedWarning):
        opened = journal.open_journal(tmp_path, {"data": "abc"}, **WORK)
    opened.write("part", {"x": np.ones(2)})
    assert opened.read("part")["x"].sum() == 2


def test_a_state_is_of_its_work_alone(tmp_path):
    path = tmp_path / "state.npz"
    told = {"state": "sum", "remedy": REMEDY}
    assert journal.read_state(path, {"a": 1}, **told) is None
    for done in (1, 2):
        journal.write_state(path, {"done": done}, {"a": 1})
        assert journal.read_state(path, {"a": 1}, **told)["done"] == done
    with pytest.raises(ValueError, match=r"differ: a \(file: \[1\], now: \[2\]\)"):
        journal.read_state(path, {"a": 2}, **told)
    files.write_arrays(path, {"done": 1})
    with pytest.raises(ValueError, match=f"is no sum .*{REMEDY}"):
        journal.read_state(path, {"a": 1}, **told)


def test_a_sum_of_an_earlier_version_goes_on(tmp_path):
    from jaxunlearn.gradients.accumulation import accumulate

    # As it was written before there were journals.
    path = tmp_path / "sum.npz"
    text = json.dumps({"shape": [2], "data": "abc"}, sort_keys=True)
    saved = {"done": 1, "fingerprint": text, "sum/x": np.float32([10, 20])}
    np.savez(path, **saved)
    batches = [{"x": np.float32([1, 2])}, {"x": np.float32([3, 4])}]
    found = accumulate(
        lambda batch: {"x": batch["x"]},
        batches,
        state_path=path,
        fingerprint={"data": "abc", "shape": (2,)},
    )
    assert found["x"].tolist() == [13, 24]


def test_outcomes_of_an_earlier_version_are_kept(tmp_path):
    from jaxunlearn.influence.truth.subset_training import run_digest, train_subsets

    def train(weights, seed):
        return weights.sum()[None] + seed

    weights = np.float32([[1, 1], [0, 1]])
    path = tmp_path / "outcomes.npz"
    digest = run_digest(train, weights, (0,))
    np.savez(path, digest=digest, outcomes=np.float32([[99]]))
    outcomes = train_subsets(train, weights, group=1, path=path)
    assert outcomes.ravel().tolist() == [99, 1]
    with np.load(path) as written:
        assert json.loads(str(written["fingerprint"])) == {"digest": digest}
    assert train_subsets(train, weights, path=path).ravel().tolist() == [99, 1]
