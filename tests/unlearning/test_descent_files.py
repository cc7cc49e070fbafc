import jax.numpy as jnp
import pytest

from jaxunlearn.training import checkpoints
from jaxunlearn.unlearning.descent_files import DescentFiles
from jaxunlearn.unlearning.descent_step import Descent
from jaxunlearn.unlearning.outcome import PathPoint

ABOUT = {"method": "own", "options": {"epochs": (1, 2), "rate": 0.5}}


def state_at(step):
    params = {"kernel": jnp.full((2, 3), 1 / (1 + step))}
    return Descent(params, (jnp.float32(step),), (), jnp.int32(step))


def test_work_is_taken_up_at_its_last_step_whatever_its_options_are(tmp_path):
    files = DescentFiles(tmp_path, ABOUT)
    history = [PathPoint(step, 1.0 + step, 2.0) for step in range(4)]
    for step in (1, 2, 3):
        files.save(state_at(step), history[: step + 1])
    state, points = files.resume(state_at(0))
    assert int(state.step) == 3
    assert (state.params["kernel"] == 1 / 4).all()
    assert points == history
    # Of the checkpoints the latest stay, as those of training do.
    kept = checkpoints.steps(tmp_path / "checkpoints")
    assert kept == [2, 3]
    assert len(kept) == checkpoints.KEEP


def test_other_work_is_refused_by_what_differs(tmp_path):
    DescentFiles(tmp_path, ABOUT).save(state_at(1), [])
    other = ABOUT | {"options": {"epochs": (1,), "rate": 0.5}}
    with pytest.raises(ValueError, match="of other options: delete the folder"):
        DescentFiles(tmp_path, other).resume(state_at(0))
