import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients.accumulation import accumulate

BATCHES = 7


def statistic(batch):
    return {"sum": batch["x"].sum(axis=0), "gram": batch["x"].T @ batch["x"]}


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((4, 3)).astype(np.float32)} for _ in range(7)]


@pytest.fixture(scope="module")
def whole(batches):
    return accumulate(statistic, batches)


class Killed(Exception):
    pass


def kill_after(count):
    def progress(done, total):
        if done == count:
            raise Killed

    return progress


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype == jnp.float32
        np.testing.assert_array_equal(x, y)


def test_it_is_the_sum_over_all_examples(batches, whole):
    x = np.concatenate([b["x"] for b in batches]).astype(np.float64)
    np.testing.assert_allclose(whole["sum"], x.sum(axis=0), atol=1e-5)
    np.testing.assert_allclose(whole["gram"], x.T @ x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("killed", range(1, BATCHES + 1))
@pytest.mark.parametrize("every", [1, 2, 3, 50])
def test_killed_and_resumed_is_bit_equal(batches, whole, tmp_path, every, killed):
    options = dict(state_path=tmp_path / "s.npz", fingerprint={"a": 1}, every=every)
    with pytest.raises(Killed):
        accumulate(statistic, batches, **options, progress=kill_after(killed))
    seen = []
    total = accumulate(
        statistic, batches, **options, progress=lambda d, t: seen.append((d, t))
    )
    assert_same_bits(total, whole)
    start = killed // every * every
    assert seen == [(d, BATCHES) for d in range(start + 1, BATCHES + 1)]
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]


def test_a_finished_sum_is_read_and_not_made_again(batches, whole, tmp_path):
    options = dict(state_path=tmp_path / "s.npz", fingerprint={"a": 1})
    accumulate(statistic, batches, **options)

    def never(done, total):
        raise AssertionError("a batch was summed twice")

    again = accumulate(statistic, batches, **options, progress=never)
    assert_same_bits(again, whole)


def test_new_batches_are_added(batches, whole, tmp_path):
    options = dict(state_path=tmp_path / "s.npz", fingerprint={"a": 1})
    accumulate(statistic, batches[:4], **options)
    assert_same_bits(accumulate(statistic, batches, **options), whole)


def test_a_bare_array_and_a_generator_will_do(batches, tmp_path):
    options = dict(state_path=tmp_path / "s.npz", fingerprint={})
    for _ in range(2):
        total = accumulate(
            lambda batch: batch["x"].sum(), (b for b in batches), **options
        )
        expected = sum(b["x"].sum() for b in batches)
        np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_sums_are_float32():
    """In bfloat16 a sum of ones stops at 256."""
    ones = [{"x": jnp.ones(1, jnp.bfloat16)}] * 300
    total = accumulate(lambda batch: batch["x"].sum(), ones)
    assert total.dtype == jnp.float32
    assert total == 300


def test_arrays_of_a_partial_are_arguments_not_constants(batches):
    traces = []

    def scaled_sum(scale, batch):
        traces.append(scale)
        return scale * batch["x"].sum()

    for scale in (1.0, 2.0):
        partial = jax.tree_util.Partial(scaled_sum, jnp.float32(scale))
        total = accumulate(partial, batches)
        expected = scale * sum(b["x"].sum() for b in batches)
        np.testing.assert_allclose(total, expected, rtol=1e-5)
    compiled = [t for t in traces if isinstance(t, jax.Array)]
    assert len(traces) <= 3  # two for the shapes, one to compile
    assert compiled


def test_other_work_is_refused_and_named(batches, tmp_path):
    path = tmp_path / "s.npz"
    accumulate(statistic, batches, state_path=path, fingerprint={"a": 1, "b": [2]})
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"these differ: b, c .*\[\[2\], None\]"):
        accumulate(
            statistic, batches, state_path=path, fingerprint={"a": 1, "b": [3], "c": 0}
        )
    with pytest.raises(ValueError, match="a sum of another form"):
        accumulate(
            lambda b: b["x"].sum(), batches, state_path=path,
            fingerprint={"a": 1, "b": [2]},
        )  # fmt: skip
    with pytest.raises(ValueError, match="sum of 7 batches, batches has only 3"):
        accumulate(
            statistic, batches[:3], state_path=path, fingerprint={"a": 1, "b": [2]}
        )
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04cut"])
def test_a_damaged_file_is_refused(batches, tmp_path, content):
    path = tmp_path / "s.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="s.npz is (damaged|no saved sum)"):
        accumulate(statistic, batches, state_path=path, fingerprint={})


def test_misuse_is_refused(batches, tmp_path):
    with pytest.raises(ValueError, match="holds no batch"):
        accumulate(statistic, [])
    with pytest.raises(ValueError, match="every=0"):
        accumulate(statistic, batches, every=0)
    with pytest.raises(ValueError, match="needs a fingerprint"):
        accumulate(statistic, batches, state_path=tmp_path / "s.npz")
