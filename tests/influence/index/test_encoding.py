import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients.projections.projection import Block
from jaxunlearn.influence.index.encoding import (
    Run,
    blocks_of,
    decode,
    encode,
    rank_agreement,
    runs,
)

EPS = float(np.finfo(np.float32).eps)
SIZES = (5, 5, 5, 8, 2, 2)
LAYOUT = tuple(
    Block(f"layer {i}", sum(SIZES[:i]), size) for i, size in enumerate(SIZES)
)


@pytest.fixture(scope="module")
def rows():
    """Rows whose layers differ in scale by six orders; some blocks are all zero."""
    rng = np.random.default_rng(0)
    scale = np.repeat(10.0 ** rng.uniform(-4, 2, len(SIZES)), SIZES)
    rows = (rng.standard_t(3, size=(9, sum(SIZES))) * scale).astype(np.float32)
    rows[4] = 0
    rows[5, :5] = 0
    return rows


def test_runs_cover_the_layout_once(rows):
    assert runs(LAYOUT) == [Run(0, 0, 3, 5), Run(15, 3, 1, 8), Run(23, 4, 2, 2)]
    parts = [np.asarray(blocks_of(rows, run)).reshape(9, -1) for run in runs(LAYOUT)]
    assert np.array_equal(np.concatenate(parts, axis=1), rows)


def test_int8_is_off_by_half_a_step_of_its_own_block(rows):
    stored = jax.jit(lambda x: encode(x, LAYOUT, "int8"))(rows)
    assert stored.rows.dtype == jnp.int8
    read = decode(stored.rows, stored.scales, LAYOUT)
    for number, (_, offset, size) in enumerate(LAYOUT):
        here = slice(offset, offset + size)
        steps = np.abs(rows[:, here]).max(axis=1) / 127
        np.testing.assert_allclose(stored.scales[:, number], steps, rtol=4 * EPS)
        error = np.abs(read[:, here] - rows[:, here]).max(axis=1)
        assert (error <= steps * (0.5 + 200 * EPS)).all()
        # The largest entry is kept, so nothing is clipped.
        largest = np.abs(read[:, here]).max(axis=1)
        np.testing.assert_allclose(largest, steps * 127, rtol=4 * EPS)
    norms = np.linalg.norm(np.asarray(read, np.float64), axis=1)
    np.testing.assert_allclose(stored.norms, norms, rtol=8 * EPS)


@pytest.mark.parametrize(("dtype", "eps"), [("bfloat16", 2.0**-7), ("float32", 0)])
def test_floats_are_off_by_their_rounding(rows, dtype, eps):
    stored = encode(jnp.asarray(rows), LAYOUT, dtype)
    assert stored.rows.dtype == dtype
    assert stored.scales.shape == (9, 0)
    read = decode(stored.rows, stored.scales, LAYOUT)
    np.testing.assert_allclose(read, rows, rtol=eps / 2, atol=0)


def test_an_encoded_row_does_not_depend_on_its_neighbours(rows):
    together = encode(jnp.asarray(rows), LAYOUT, "int8")
    for i in range(9):
        alone = encode(jnp.asarray(rows[i : i + 1]), LAYOUT, "int8")
        assert np.array_equal(alone.rows[0], together.rows[i])
        assert np.array_equal(alone.scales[0], together.scales[i])


def gradient_like(rng, count, layers, size):
    """Rows as gradients have them: scales differ by layer, and by example, heavily;
    a few directions are shared by all examples."""
    layer_scale = 10.0 ** rng.uniform(-3, 1, layers)
    example_scale = rng.lognormal(0, 1, (count, layers))
    shared = rng.standard_normal((8, layers, size))
    weights = rng.standard_t(3, size=(count, 8))
    signal = np.einsum("nj,jls->nls", weights, shared)
    noise = rng.standard_t(4, size=(count, layers, size))
    whole = (signal + noise) * (layer_scale * example_scale)[:, :, None]
    return whole.reshape(count, -1).astype(np.float32)


def test_4_kilobytes_rank_as_16_do():
    """4096 numbers in 16 layers: int8 against float32 rows, for 24 queries."""
    rng = np.random.default_rng(2)
    rows = gradient_like(rng, 600, 16, 256)
    queries = gradient_like(rng, 24, 16, 256)
    layout = [Block(str(i), 256 * i, 256) for i in range(16)]
    assert rank_agreement(rows, queries, layout).min() > 0.999
    # The measure can tell: one scale for all layers loses the small ones.
    flat = np.tile(10.0 ** np.linspace(-4, 0, 16).repeat(256), (600, 1))
    uneven = (rng.standard_normal((600, 4096)) * flat).astype(np.float32)
    small = np.where(flat[0] < 1e-2, rng.standard_normal((4, 4096)), 0)
    assert rank_agreement(uneven, small, layout).min() > 0.999
    assert rank_agreement(uneven, small, [Block("all", 0, 4096)]).max() < 0.9


def test_float32_loses_nothing(rows):
    assert (rank_agreement(rows, rows[:3], LAYOUT, dtype="float32") == 1).all()
