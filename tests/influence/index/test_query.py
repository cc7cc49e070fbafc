import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients.projections.projection import Block, Projection
from jaxunlearn.influence.index.build import build_index
from jaxunlearn.influence.index.description import open_index
from jaxunlearn.influence.index.fisher import damped_inverse, projected_fisher
from jaxunlearn.influence.index.query import all_scores, top_k
from jaxunlearn.influence.index.reading import read_rows, stored_ids

EPS = float(np.finfo(np.float32).eps)
LAYOUT = (Block("a", 0, 4), Block("b", 4, 4), Block("c", 8, 3), Block("dead", 11, 2))
WIDTH = 13
COUNT = 50
RNG = np.random.default_rng(0)
IDS = RNG.permutation(1000)[:COUNT].astype(np.int32)
QUERIES = RNG.standard_normal((3, WIDTH)).astype(np.float32)


def make_index(directory, dtype, rows):
    build_index(
        directory,
        lambda batch: batch["rows"],
        [{"index": IDS, "rows": rows}],
        model_hash="model",
        data_hash="data",
        projection=Projection(),
        layout=LAYOUT,
        dtype=dtype,
        chunk_rows=16,
    )
    return open_index(directory, model_hash="model")


@pytest.fixture(scope="module", params=["int8", "bfloat16", "float32"])
def index(request, tmp_path_factory):
    rows = RNG.standard_normal((COUNT, WIDTH)).astype(np.float32)
    rows *= np.repeat([1.0, 100.0, 0.01, 0.0], (4, 4, 3, 2)).astype(np.float32)
    rows[7] = 0  # an example without gradient has no direction
    return make_index(tmp_path_factory.mktemp("index"), request.param, rows)


@pytest.fixture(scope="module")
def rows(index):
    """As they are read back, in float64."""
    return read_rows(index, np.arange(COUNT)).astype(np.float64)


@pytest.mark.parametrize("rows_at_a_time", [1, 7, 16, 50, 1000])
def test_streaming_equals_one_matrix_product(index, rows, rows_at_a_time):
    expected = QUERIES.astype(np.float64) @ rows.T
    bound = 16 * EPS * np.abs(QUERIES) @ np.abs(rows.T)
    found = all_scores(index, QUERIES, rows_at_a_time=rows_at_a_time)
    assert found.dtype == np.float32
    assert (np.abs(found - expected) <= bound).all()
    for k in (1, 5, COUNT):
        high, low = top_k(index, QUERIES, k=k, rows_at_a_time=rows_at_a_time)
        order = np.argsort(-expected, axis=1, kind="stable")
        assert np.array_equal(high.ids, IDS[order[:, :k]])
        assert np.array_equal(low.ids, IDS[np.argsort(expected, kind="stable")[:, :k]])
        for q in range(3):
            np.testing.assert_allclose(
                high.scores[q], expected[q, order[q, :k]], atol=bound.max()
            )
            np.testing.assert_allclose(
                low.scores[q], np.sort(expected[q])[:k], atol=bound.max()
            )


def test_a_query_does_not_depend_on_the_others(index):
    together = all_scores(index, QUERIES)
    alone = [all_scores(index, QUERIES[q : q + 1])[0] for q in range(3)]
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-5)


def test_scores_stream_to_a_file(index, tmp_path):
    path = tmp_path / "scores.npy"
    mapped = all_scores(index, QUERIES, path=path, rows_at_a_time=16)
    assert isinstance(mapped, np.memmap)
    expected = all_scores(index, QUERIES, rows_at_a_time=16)
    assert np.array_equal(np.load(path), expected)
    assert [f.name for f in tmp_path.iterdir()] == ["scores.npy"]


def test_a_query_that_fails_leaves_no_file(tmp_path):
    rows = np.ones((COUNT, WIDTH), np.float32)
    index = make_index(tmp_path / "index", "float32", rows)
    (tmp_path / "index" / "rows" / "c" / "2" / "0").write_bytes(b"cut")
    with pytest.raises(ValueError, match="rows/c/2/0"):
        all_scores(index, QUERIES, path=tmp_path / "scores.npy", rows_at_a_time=16)
    assert [f.name for f in tmp_path.iterdir()] == ["index"]


def test_cosine_divides_by_both_lengths(index, rows):
    lengths = np.linalg.norm(QUERIES, axis=1)[:, None] * np.linalg.norm(rows, axis=1)
    expected = QUERIES @ rows.T / np.where(lengths == 0, 1, lengths)
    found = all_scores(index, QUERIES, cosine=True)
    np.testing.assert_allclose(found, expected, atol=32 * EPS)
    assert not found[:, 7].any()
    own = all_scores(index, rows[:3], cosine=True)
    np.testing.assert_allclose(np.diag(own), 1, atol=32 * EPS)
    high = top_k(index, rows[:3].astype(np.float32), k=1, cosine=True).proponents
    assert high.ids[:, 0].tolist() == IDS[:3].tolist()


def test_equal_scores_come_in_the_order_of_the_rows(tmp_path):
    index = make_index(tmp_path, "float32", np.ones((COUNT, WIDTH), np.float32))
    for size in (3, 50):
        for found in top_k(index, QUERIES, k=8, rows_at_a_time=size):
            assert np.array_equal(found.ids, np.tile(IDS[:8], (3, 1)))


@pytest.mark.parametrize("rows_at_a_time", [7, 1000])
def test_the_fisher_is_the_mean_outer_product_of_each_layer(
    index, rows, rows_at_a_time
):
    fisher = projected_fisher(index, rows_at_a_time=rows_at_a_time)
    assert list(fisher) == [block.layer for block in LAYOUT]
    for layer, offset, size in LAYOUT:
        part = rows[:, offset : offset + size]
        expected = part.T @ part / COUNT
        tolerance = 16 * EPS * max(np.abs(part).max() ** 2, EPS)
        np.testing.assert_allclose(fisher[layer], expected, atol=tolerance)


def test_the_preconditioner_solves_in_the_projected_space(index, rows):
    fisher = projected_fisher(index)
    whole = np.zeros((WIDTH, WIDTH))
    shares = np.zeros(WIDTH)
    for layer, offset, size in LAYOUT:
        here = slice(offset, offset + size)
        whole[here, here] = fisher[layer]
        shares[here] = 0.1 * np.trace(fisher[layer]) / size
    live = slice(0, 11)
    inverse = np.zeros((WIDTH, WIDTH))
    inverse[live, live] = np.linalg.inv(whole[live, live] + np.diag(shares)[live, live])
    precondition = damped_inverse(fisher, share=0.1)
    solved = precondition(QUERIES)
    np.testing.assert_allclose(solved, QUERIES @ inverse, rtol=1e-5, atol=0)
    calls = []

    def counted(queries):
        calls.append(len(queries))
        return precondition(queries)

    expected = solved.astype(np.float64) @ rows.T
    found = all_scores(index, QUERIES, preconditioner=counted, rows_at_a_time=7)
    bound = 16 * EPS * np.abs(solved) @ np.abs(rows.T)
    assert (np.abs(found - expected) <= bound).all()
    high, _ = top_k(index, QUERIES, k=4, preconditioner=counted, rows_at_a_time=7)
    assert np.array_equal(high.ids, IDS[np.argsort(-found, kind="stable")[:, :4]])
    assert calls == [3, 3]  # once, not once a chunk
    # Much damping is no preconditioner, but for a factor.
    flat = damped_inverse(fisher, damping=1e9)(QUERIES)
    np.testing.assert_allclose(flat * 1e9, QUERIES, rtol=1e-4)


def test_misuse_is_an_error(index):
    def refused(message, function, *arguments, **options):
        with pytest.raises(ValueError, match=message):
            function(index, *arguments, **options)

    refused("k=51: must be between 1 and the index's 50 rows", top_k, QUERIES, k=51)
    refused("k=0: must be between", top_k, QUERIES, k=0)
    refused(r"shape \(3, 12\), expected \[Q, 13\]", top_k, QUERIES[:, 1:], k=1)
    refused(r"shape \(13,\), expected", all_scores, QUERIES[0])
    spoiled = QUERIES.copy()
    spoiled[1, 3] = np.nan
    refused("queries: row 1 is not finite$", all_scores, spoiled)
    refused(
        "row 0 is not finite after the preconditioner",
        all_scores,
        QUERIES,
        preconditioner=lambda q: q * np.inf,
    )
    refused("rows_at_a_time=0: must be", all_scores, QUERIES, rows_at_a_time=0)
    refused(
        "positions run from 3 to 50: the index has rows 0 to 49", read_rows, [3, 50]
    )
    fisher = projected_fisher(index)
    for options in ({}, {"damping": 1.0, "share": 0.1}):
        with pytest.raises(ValueError, match="give one of them, such as share=0.1"):
            damped_inverse(fisher, **options)
    with pytest.raises(ValueError, match="must not be negative"):
        damped_inverse(fisher, share=-1.0)
    with pytest.raises(
        ValueError, match="Fisher block of dead plus a damping of 0 can"
    ):
        damped_inverse(fisher, damping=0.0)


def test_ids_are_in_the_order_of_the_rows(index):
    assert np.array_equal(stored_ids(index), IDS)
    assert jnp.asarray(stored_ids(index)).dtype == jnp.int32
