"""A scoring run that is killed at any point goes on to the same scores."""

import contextlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.files import write_arrays
from jaxunlearn.gradients import per_example_gradients
from jaxunlearn.gradients.kronecker import cache
from jaxunlearn.influence import load_scores, resume, save_scores, scores
from jaxunlearn.tree import named_leaves

LAYER = nn.Dense(2)


def loss(params, batch):
    found = LAYER.apply({"params": params}, batch["x"])
    return jnp.sum((found - batch["y"]) ** 2, axis=-1)


@pytest.fixture(scope="module")
def problem():
    draw = np.random.default_rng(0)

    def batch(start, count):
        return {
            "x": draw.normal(size=(count, 3)).astype(np.float32),
            "y": draw.normal(size=(count, 2)).astype(np.float32),
            "index": np.arange(start, start + count, dtype=np.int32),
        }

    train = [batch(start, 2) for start in range(0, 12, 2)]
    train[-1]["index"][1] = -1  # padding
    params = LAYER.init(jax.random.key(0), jnp.zeros((1, 3)))["params"]
    return params, train, batch(0, 3)


class Killed(Exception):
    pass


def killing(after):
    """A progress function that ends the run at the call of that number."""
    calls = iter(range(10_000))

    def progress(done, total):
        if next(calls) == after:
            raise Killed

    return progress


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("gradient_dot", {}),
        ("gradient_dot", {"aggregate": "sum"}),
        ("cosine", {}),
        ("cg", {"damping": 0.5, "by_layer": True}),
        ("ekfac", {}),
        ("relatif", {"inverse": "identity"}),
    ],
)
def test_killed_anywhere_it_goes_on_to_the_same_scores(
    problem, tmp_path, monkeypatch, method, options
):
    monkeypatch.setattr(resume, "GROUP", 2)
    whole = scores(loss, *problem, method=method, state=tmp_path / "whole", **options)
    for after in (1, 3):
        given = {"method": method, "state": tmp_path / str(after), **options}
        with contextlib.suppress(Killed):  # a short run comes to its end
            scores(loss, *problem, progress=killing(after), **given)
        found = scores(loss, *problem, **given)
        np.testing.assert_array_equal(found.scores, whole.scores)
        assert found.damping == whole.damping
        assert found.notes == whole.notes
        if whole.by_layer is not None:
            assert found.by_layer.keys() == whole.by_layer.keys()
            for name, part in whole.by_layer.items():
                np.testing.assert_array_equal(found.by_layer[name], part)


def test_finished_parts_are_read_and_not_computed(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "GROUP", 2)
    given = {"method": "cg", "damping": 0.5, "state": tmp_path / "state"}
    first = scores(loss, *problem, **given)
    names = sorted(path.name for path in given["state"].iterdir())
    parts = [f"products-{i:06d}.npz" for i in range(3)]
    assert names == ["directions.npz", *parts, "run.json"]
    part = given["state"] / parts[1]
    write_arrays(part, {"names": "null", "0": np.full((3, 4), 7.0)})
    again = scores(loss, *problem, **given)
    assert (again.scores[:, 4:8] == 7).all()
    np.testing.assert_array_equal(again.scores[:, :4], first.scores[:, :4])


def test_ekfac_that_fits_in_memory_takes_one_pass(problem, tmp_path, monkeypatch):
    slow = scores(
        *(loss, *problem),
        method="ekfac",
        state=tmp_path / "slow",
        keep_directions=True,
    )
    assert (tmp_path / "slow" / "directions.npz").exists()
    fast = scores(loss, *problem, method="ekfac", state=tmp_path / "fast")
    assert [path.name for path in (tmp_path / "fast").iterdir()] == ["run.json"]
    close = {"rtol": 1e-4, "atol": 1e-5 * np.abs(slow.scores).max()}
    np.testing.assert_allclose(fast.scores, slow.scores, **close)
    # What stands there is taken up, by the way that it was begun.
    again = scores(loss, *problem, method="ekfac", state=tmp_path / "slow")
    np.testing.assert_array_equal(again.scores, slow.scores)
    # What is long keeps its parts.
    monkeypatch.setattr(cache, "CACHE_BYTES", 1)
    scores(loss, *problem, method="ekfac", state=tmp_path / "long")
    assert (tmp_path / "long" / "directions.npz").exists()


def test_parts_of_another_run_are_refused(problem, tmp_path):
    params, train, query = problem
    given = {"method": "gradient_dot", "state": tmp_path / "state"}
    scores(loss, params, train, query, **given)
    moved = jax.tree.map(lambda x: x + 1, params)
    fewer = {name: x[:2] for name, x in query.items()}
    for differing, arguments, options in (
        ("params", (moved, train, query), {}),
        ("train", (params, train[:-1], query), {}),
        ("query", (params, train, fewer), {}),
        ("layers", (params, train, query), {"layers": "kernel"}),
        ("aggregate", (params, train, query), {"aggregate": "mean"}),
        ("method", (params, train, query), {"method": "cosine"}),
    ):
        with pytest.raises(ValueError, match=rf"its .*{differing}.* differ"):
            scores(loss, *arguments, **{**given, **options})


def test_what_is_no_state_is_refused_and_damage_is_named(problem, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds no scoring run .*run\.json"):
        scores(loss, *problem, state=tmp_path, method="gradient_dot")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    state = tmp_path / "state"
    scores(loss, *problem, state=state, method="gradient_dot")
    (state / "products-000000.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="products-000000.npz is damaged"):
        scores(loss, *problem, state=state, method="gradient_dot")
    (state / "run.json").write_text("{")
    with pytest.raises(ValueError, match="delete that folder"):
        scores(loss, *problem, state=state, method="gradient_dot")


def test_methods_without_parts_say_so(problem, tmp_path):
    with pytest.raises(ValueError, match="state does not go with method='trak'"):
        scores(loss, *problem, method="trak", state=tmp_path / "state")
    assert not (tmp_path / "state").exists()
    with pytest.raises(ValueError, match="keep_directions.* does not go with"):
        scores(loss, *problem, method="trak", keep_directions=True)


@pytest.mark.parametrize("method", ["gradient_dot", "diagonal"])
def test_scores_are_products_with_the_directions(problem, tmp_path, method):
    params, train, query = problem
    found = scores(loss, *problem, method=method, keep_directions=True)
    joined = {k: np.concatenate([b[k] for b in train]) for k in train[0]}
    gradients = dict(named_leaves(per_example_gradients(loss, params, joined)))
    products = sum(
        jnp.einsum("q...,n...->qn", found.directions[name], gradient)
        for name, gradient in gradients.items()
    )
    np.testing.assert_allclose(found.scores, products[:, :-1], rtol=1e-5, atol=1e-5)
    assert scores(loss, *problem, method=method).directions is None
    save_scores(tmp_path / "s.npz", found)
    assert load_scores(tmp_path / "s.npz").directions is None
