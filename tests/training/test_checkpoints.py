import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxunlearn.sealed import UncheckedWarning
from jaxunlearn.training import Recipe, checkpoints
from jaxunlearn.training.recipe import TrainingState, initial_state, optimizer

NAMES = [
    "a[x]",
    "[/red]",
    "a\\b",
    "with space",
    "50%20",
    "a*?",
    "~",
    "-v",
    "Ñandú",
    "{y}",
]


@pytest.fixture
def state(params):
    """The state of an AdamW run, with numbers in every array."""
    recipe = Recipe(weight_decay=0.1, schedule="cosine", clip_norm=1.0)
    fresh = initial_state(params, optimizer(recipe, 10))
    rng = np.random.default_rng(3)
    filled = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape) * 10, x.dtype), fresh
    )
    return filled._replace(step=jnp.int32(7))


def test_a_state_comes_back_bit_for_bit(state, same_bits, tmp_path):
    checkpoints.save(tmp_path, state)
    like = jax.tree.map(jnp.zeros_like, state)
    read = checkpoints.restore(tmp_path, 7, like)
    assert isinstance(read, TrainingState)
    assert jax.tree.structure(read) == jax.tree.structure(state)
    assert same_bits(read, state)


def test_the_last_two_are_kept(state, tmp_path):
    assert checkpoints.latest_step(tmp_path / "nowhere") is None
    for step in (1, 2, 11):
        checkpoints.save(tmp_path, state._replace(step=jnp.int32(step)))
    assert checkpoints.latest_step(tmp_path) == 11
    assert checkpoints.steps(tmp_path) == [2, 11]


def test_what_was_written_to_be_kept_stays(state, same_bits, tmp_path):
    for step in (2, 3, 4, 6, 7):
        here = state._replace(step=jnp.int32(step))
        checkpoints.save(tmp_path, here, keep=step % 2 == 0)
    assert checkpoints.steps(tmp_path) == [2, 4, 6, 7]
    # Its file does not harm what is read.
    read = checkpoints.restore(tmp_path, 2, state)
    assert same_bits(read, state._replace(step=jnp.int32(2)))


def cut_metadata(folder):
    (path,) = folder.rglob("_METADATA")
    path.write_text(path.read_text()[:20])


def flip(path, bit):
    """Flip one bit of a file."""
    held = bytearray(path.read_bytes())
    held[bit // 8] ^= 1 << bit % 8
    path.write_bytes(held)


@pytest.mark.parametrize(
    "spoil", [cut_metadata, lambda f: shutil.rmtree(f / "d"), lambda f: largest(f, 999)]
)
def test_a_damaged_checkpoint_is_an_error_with_a_remedy(state, tmp_path, spoil):
    checkpoints.save(tmp_path, state)
    spoil(tmp_path / "7")
    with pytest.raises(
        ValueError, match=r"/7/.* is (damaged|missing).*: delete .*7 to"
    ):
        checkpoints.restore(tmp_path, 7, state)


def largest(folder, bit):
    flip(max(folder.rglob("*"), key=lambda path: path.stat().st_size), bit)


def test_a_checkpoint_missing_or_of_another_model_is_an_error(state, tmp_path):
    checkpoints.save(tmp_path, state)
    with pytest.raises(ValueError, match="/3 cannot be read .*It is missing"):
        checkpoints.restore(tmp_path, 3, state)
    other = state._replace(params={"wte": state.params["wte"]})
    with pytest.raises(ValueError, match="damaged or of another model: delete"):
        checkpoints.restore(tmp_path, 7, other)


def test_checkpoints_of_an_earlier_version_are_read_with_a_warning(
    state, same_bits, tmp_path
):
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        manager.save(7, args=ocp.args.StandardSave(state._asdict()))
    assert checkpoints.latest_step(tmp_path) == 7
    with pytest.warns(UncheckedWarning, match="7 was written without hashes"):
        read = checkpoints.restore(tmp_path, 7, state)
    assert same_bits(read, state)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_may_have_any_name(state, same_bits, tmp_path, name):
    checkpoints.save(tmp_path / name, state)
    assert same_bits(checkpoints.restore(tmp_path / name, 7, state), state)


def test_killed_at_any_moment_whole_checkpoints_alone_have_a_name(state, tmp_path):
    checkpoints.save(tmp_path, state)
    folder = tmp_path / "7"

    def killed(*_):
        raise KeyboardInterrupt

    for moment in ("write_checksums", "plainly_named"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoints, moment, killed)
            with pytest.raises(KeyboardInterrupt):
                checkpoints.save(tmp_path, state._replace(step=jnp.int32(9)))
        assert checkpoints.latest_step(tmp_path) == 7
    assert (folder / "checksums.json").is_file()


def test_parameters_come_back_bit_for_bit_and_replace_the_old(
    params, same_bits, tmp_path
):
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    for tree in (half, params, half):
        checkpoints.save_params(tmp_path / "start", tree)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
        assert same_bits(checkpoints.restore_params(tmp_path / "start", like), tree)
    assert [x.name for x in tmp_path.iterdir()] == ["start"]


def test_missing_or_damaged_parameters_are_an_error_with_a_remedy(params, tmp_path):
    with pytest.raises(ValueError, match="start cannot be read .*missing, damaged"):
        checkpoints.restore_params(tmp_path / "start", params)
    checkpoints.save_params(tmp_path / "start", params)
    other = {"wte": params["wte"]}
    with pytest.raises(ValueError, match="start cannot be read .*another model"):
        checkpoints.restore_params(tmp_path / "start", other)
    cut_metadata(tmp_path / "start")
    with pytest.raises(ValueError, match="_METADATA is damaged .*train again"):
        checkpoints.restore_params(tmp_path / "start", params)


def test_an_error_is_told_in_one_line():
    assert checkpoints.first_line(KeyError("a\nb")) == "KeyError: 'a\\nb'"
    assert checkpoints.first_line(ValueError("one\ntwo")) == "ValueError: one"
    assert checkpoints.first_line(AssertionError()) == "AssertionError: "
