"""Influence scores against closed forms on a model whose gradients are written down."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import influence
from jaxunlearn.gradients.kronecker.inverse import Damping
from jaxunlearn.gradients.projections.projection import Projection
from jaxunlearn.influence import METHODS, Checkpoint, TrainingRun, method_name
from jaxunlearn.influence.methods import rank_one
from jaxunlearn.influence.options import NAMES, USED_BY, used_by
from jaxunlearn.training.weighted import initial_state, make_weighted_step

EPS = float(jnp.finfo(jnp.float32).eps)
WIDTH, TRAIN, QUERIES = 5, 9, 3
DAMPING = 0.3
KEY = jax.random.key(0)


def loss(params, batch):
    return 0.5 * (batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2


def data(seed, size):
    x = np.random.default_rng(seed).normal(size=(size, WIDTH)).astype(np.float32)
    return {"x": x, "y": x[:, 0] - 0.5, "index": np.arange(size)}


PARAMS = {"b": jnp.float32(0.3), "w": jnp.linspace(-1.0, 1.0, WIDTH)}
DATA, QUERY = data(0, TRAIN), data(1, QUERIES)


def gradients(batch):
    """The gradients written down, float64 [n, 1 + WIDTH]: b, then w."""
    x = np.asarray(batch["x"], np.float64)
    error = x @ np.asarray(PARAMS["w"], np.float64) + 0.3 - batch["y"]
    return error[:, None] * np.column_stack([np.ones(len(x)), x])


G, Q = gradients(DATA), gradients(QUERY)
FISHER = G.T @ G / TRAIN
INVERSE = np.linalg.inv(FISHER + DAMPING * np.eye(WIDTH + 1))


def scored(method, **options):
    query = options.pop("query", QUERY)
    return influence.scores(loss, PARAMS, DATA, query, method=method, **options)


def close(found, expected, factor=64):
    tolerance = factor * EPS * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


EXPECTED = {
    "gradient_dot": Q @ G.T,
    "cosine": Q @ G.T / np.outer(np.linalg.norm(Q, axis=1), np.linalg.norm(G, axis=1)),
    "woodbury": Q @ INVERSE @ G.T,
    "diagonal": Q / (np.diag(FISHER) + DAMPING) @ G.T,
}


@pytest.mark.parametrize("method", sorted(EXPECTED))
def test_closed_forms(method):
    found = scored(method, **used_by(method, {"damping": DAMPING}))
    close(found.scores, EXPECTED[method], 256)


@pytest.mark.parametrize("method", ["cg", "influence_cg", "lissa", "nystroem"])
def test_iterative_inverses_meet_the_exact_one(method):
    options = {
        "damping": DAMPING,
        "key": jax.random.key(0),
        "tolerance": 1e-5,
        "max_steps": 2000,
        "rank": WIDTH + 1,
    }
    found = scored(method, **used_by(method_name(method), options))
    np.testing.assert_allclose(
        found.scores,
        EXPECTED["woodbury"],
        atol=1e-4 * np.abs(EXPECTED["woodbury"]).max(),
    )
    assert found.damping == pytest.approx(DAMPING)
    assert found.curvature == "fisher"
    assert found.notes


def test_hessian_is_another_curvature():
    features = np.column_stack([np.ones(TRAIN), DATA["x"]]).astype(np.float64)
    hessian = features.T @ features / TRAIN + DAMPING * np.eye(WIDTH + 1)
    expected = Q @ np.linalg.inv(hessian) @ G.T
    found = scored("cg", curvature="hessian", damping=DAMPING, tolerance=1e-6)
    np.testing.assert_allclose(
        found.scores, expected, atol=1e-4 * np.abs(expected).max()
    )


def test_default_damping_is_a_tenth_of_the_mean_eigenvalue():
    found = scored("cg")
    mean = np.trace(FISHER) / (WIDTH + 1)
    assert found.damping == pytest.approx(0.1 * mean, rel=1e-5)
    share = scored("woodbury", damping=Damping("mean_eigenvalue", 0.5))
    assert share.damping == pytest.approx(0.5 * mean, rel=1e-5)


def test_ekfac_of_a_layer_without_taps_is_its_diagonal():
    # Without taps every leaf is a matrix of one row: bases are the identity.
    found = scored("ekfac", damping=DAMPING)
    assert found.curvature == "fisher, ekfac"
    assert set(found.damping) == {"b", "w"}
    assert np.isfinite(found.scores).all()


def test_trak_without_projection_error_is_the_damped_fisher():
    # A projection wider than the gradient that keeps its length: the identity.
    shapes = Projection("kronecker", (8, 8))
    found = scored("logra", projection=shapes, damping=DAMPING)
    block = np.zeros_like(FISHER)
    block[0, 0], block[1:, 1:] = FISHER[0, 0], FISHER[1:, 1:]
    inverse = np.linalg.inv(block + DAMPING * np.eye(WIDTH + 1))
    close(found.scores, Q @ inverse @ G.T, 256)
    assert scored("trak", damping=DAMPING).scores.shape == (QUERIES, TRAIN)


def test_tracin_is_the_sum_over_checkpoints():
    twice = {k: 2 * v for k, v in PARAMS.items()}
    points = [Checkpoint(PARAMS, 0.5), Checkpoint(twice, 2.0)]
    found = scored("tracin", checkpoints=points)
    late = influence.scores(loss, twice, DATA, QUERY, method="gradient_dot").scores
    close(found.scores, 0.5 * EXPECTED["gradient_dot"] + 2.0 * late)
    assert found.coverage["checkpoints"] == 2


def test_self_influence_and_relatif():
    found = scored("self_influence", query=None, inverse="identity")
    close(found.scores, np.sum(G**2, axis=1)[None])
    found = scored("relatif", inverse="identity")
    close(found.scores, Q @ G.T / np.linalg.norm(G, axis=1))
    own = scored("self_influence", query=None, damping=DAMPING).scores[0]
    both = influence.scores(loss, PARAMS, DATA, DATA, method="ekfac", damping=DAMPING)
    close(own, np.diag(both.scores), 256)


def test_unrolled_predicts_a_small_change_of_weight():
    import optax

    step = make_weighted_step(loss, optax.sgd(0.1))
    state = initial_state(PARAMS, optax.sgd(0.1))
    run = TrainingRun(step, state, [DATA] * 3)
    found = scored("unrolled", run=run)

    def trained(weights):
        now = state
        for _ in range(3):
            now = step(now, DATA, weights)
        return loss(now.params, QUERY)

    slope = jax.jacobian(trained)(jnp.ones(TRAIN))
    close(found.scores, -np.asarray(slope), 256)
    one = scored("unrolled", run=run, aggregate="sum").scores
    close(one, -np.asarray(slope).sum(axis=0)[None], 256)


@pytest.mark.parametrize("method", ["gradient_dot", "cg", "logra"])
def test_aggregated_queries_are_the_sum_and_the_mean(method):
    options = used_by(method, {"damping": DAMPING, "tolerance": 1e-6})
    apart = scored(method, **options).scores
    for name, reduce in (("sum", np.sum), ("mean", np.mean)):
        one = scored(method, aggregate=name, **options).scores
        np.testing.assert_allclose(
            one, reduce(apart, axis=0)[None], atol=1e-4 * np.abs(apart).max()
        )


def test_parts_add_up():
    labels = list("aabbccddd")
    found = scored("woodbury", damping=DAMPING, by_layer=True, groups=labels)
    close(sum(found.by_layer.values()), found.scores)
    assert set(found.by_layer) == {"b", "w"}
    np.testing.assert_allclose(
        found.groups["b"], found.scores[:, 2:4].sum(axis=1), rtol=1e-6
    )
    assert found.coverage["parameters"] == found.coverage["of"] == WIDTH + 1


def test_chosen_layers():
    found = scored("woodbury", damping=DAMPING, layers="^w$")
    inverse = np.linalg.inv(FISHER[1:, 1:] + DAMPING * np.eye(WIDTH))
    close(found.scores, Q[:, 1:] @ inverse @ G[:, 1:].T, 256)
    assert found.coverage["parameters"] == WIDTH
    found = scored("cg", damping=DAMPING, layers="^w$", tolerance=1e-6)
    np.testing.assert_allclose(found.scores, Q[:, 1:] @ inverse @ G[:, 1:].T, atol=1e-4)


@pytest.mark.parametrize("method", ["gradient_dot", "woodbury", "logra"])
def test_batches_and_padding_change_nothing(method):
    options = used_by(method, {"damping": DAMPING})
    whole = scored(method, **options).scores
    close(scored(method, batch_size=4, **options).scores, whole)
    padded = {k: np.concatenate([v, v[:3]]) for k, v in DATA.items()}
    padded["index"][TRAIN:] = -1
    padded["weight"] = (padded["index"] >= 0).astype(np.float32)
    parts = [{k: v[i : i + 6] for k, v in padded.items()} for i in (0, 6)]
    found = influence.scores(loss, PARAMS, parts, QUERY, method=method, **options)
    close(found.scores, whole)
    np.testing.assert_array_equal(found.index, np.arange(TRAIN))


def test_save_and_load_is_the_identity(tmp_path):
    found = scored("ekfac", by_layer=True, groups=list("aabbccddd"))
    influence.save_scores(tmp_path / "deep" / "scores.npz", found)
    back = influence.load_scores(tmp_path / "deep" / "scores.npz")
    np.testing.assert_array_equal(back.scores, found.scores)
    for name in ("by_layer", "groups"):
        for key, value in getattr(found, name).items():
            np.testing.assert_array_equal(getattr(back, name)[key], value)
    same = ("method", "coverage", "curvature", "damping", "notes", "sign", "by_token")
    assert all(getattr(back, name) == getattr(found, name) for name in same)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["scores.npz"]


def test_a_file_that_is_no_scores(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        influence.load_scores(tmp_path / "none.npz")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match=r"cut\.npz is damaged .*score again"):
        influence.load_scores(tmp_path / "cut.npz")
    with pytest.raises(ValueError, match=r"\.npz"):
        influence.save_scores(tmp_path / "scores.json", scored("gradient_dot"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "magical"}, "one of gradient_dot"),
        ({"method": "cosine", "by_layer": True}, "by_layer=True does not go with"),
        ({"method": "gradient_dot", "layers": "wte"}, "matches no parameter"),
        ({"method": "gradient_dot", "query": None}, "needs one"),
        ({"method": "self_influence"}, "takes none"),
        ({"method": "lissa"}, "key=None"),
        ({"method": "unrolled"}, "run=None"),
        ({"method": "source"}, "checkpoints is empty"),
        ({"method": "lanczos"}, "key=None"),
        ({"method": "cg", "curvature": "flat"}, "curvature='flat'"),
        ({"method": "cg", "max_steps": 0}, "max_steps=0: .* at least 1"),
        ({"method": "cg", "max_steps": 2.5}, "max_steps=2.5"),
        ({"method": "cg", "tolerance": -1.0}, "tolerance=-1.0"),
        ({"method": "cg", "tolerance": float("nan")}, "tolerance=nan"),
        ({"method": "ekfac", "damping": -1.0}, "damping=-1.0"),
        ({"method": "ekfac", "damping": float("nan")}, "damping=nan"),
        ({"method": "ekfac", "damping": float("inf")}, "damping=inf"),
        ({"method": "ekfac", "damping": "much"}, "damping='much'"),
        ({"method": "ekfac", "damping": Damping("mean", 0.1)}, "rule 'mean'"),
        ({"method": "ekfac", "damping": Damping("absolute", -1)}, "damping=-1"),
        ({"method": "nystroem", "rank": 0, "key": KEY}, "rank=0"),
        ({"method": "nystroem", "rank": 99, "key": KEY}, "rank=99: there are 6"),
        ({"method": "tracin", "checkpoints": [PARAMS]}, "checkpoints: a dict"),
        ({"method": "logra", "projection": (8, 8)}, "projection is of type tuple"),
        ({"method": "unrolled", "run": 3}, "run is of type int"),
        ({"method": "gradient_dot", "aggregate": "max"}, "aggregate='max'"),
        ({"method": "gradient_dot", "groups": ["a"]}, "1 labels for 9"),
        ({"method": "gradient_dot", "batch_size": 0}, "batch_size=0"),
        ({"method": "relatif", "inverse": "cg"}, "inverse='cg'"),
    ],
)
def test_misuse_is_told(options, said):
    with pytest.raises(ValueError, match=said):
        scored(options.pop("method"), **options)


GIVEN = {
    "aggregate": "sum",
    "by_layer": True,
    "by_token": True,
    "checkpoints": [Checkpoint(PARAMS)],
    "curvature": "fisher",
    "damping": 123.0,
    "inverse": "ekfac",
    "keep_directions": True,
    "key": KEY,
    "layers": "w",
    "max_steps": 100,
    "projection": Projection(),
    "query_loss": loss,
    "rank": 50,
    "run": TrainingRun(None, None, ()),
    "state": "somewhere",
    "tolerance": 1e-4,
}
"""A value for each option that not every method uses; defaults among them."""


@pytest.mark.parametrize("option", sorted(USED_BY))
def test_an_option_without_effect_is_refused(option):
    idle = [name for name in METHODS if name not in USED_BY[option]]
    assert idle
    for method in idle:
        query = None if method == "self_influence" else QUERY
        with pytest.raises(ValueError, match=f"{option}.* does not go with method='"):
            scored(method, query=query, **{option: GIVEN[option]})


def test_options_are_refused_together_and_before_they_are_read():
    with pytest.raises(ValueError, match="does not go with method='gradient_dot'"):
        scored("gradient_dot", inverse="nonsense", max_steps=-3, damping=123.0)
    with pytest.raises(ValueError, match="does not go with inverse='identity'"):
        scored("relatif", inverse="identity", damping=0.1)


def test_every_method_and_every_option_is_in_the_table():
    known = set(inspect.signature(influence.scores).parameters)
    everywhere = {
        *("loss", "params", "train", "query", "method"),
        *("batch_size", "groups", "progress"),
    }
    assert known == everywhere | set(USED_BY)
    assert set(NAMES) == set(METHODS)
    assert all(set(users) <= set(METHODS) for users in USED_BY.values())


def test_broken_parameters_and_empty_data_are_told():
    broken = {**PARAMS, "w": PARAMS["w"].at[1].set(jnp.nan)}
    with pytest.raises(ValueError, match="NaN or infinity in w"):
        influence.scores(loss, broken, DATA, QUERY)
    with pytest.raises(ValueError, match="train is empty"):
        influence.scores(loss, PARAMS, [], QUERY)
    two = [DATA, data(3, 4)]
    with pytest.raises(ValueError, match="one shape"):
        influence.scores(loss, PARAMS, two, QUERY)


def test_too_many_gradients_are_told(monkeypatch):
    monkeypatch.setattr(rank_one, "GRADIENT_BYTES", 64)
    with pytest.raises(ValueError, match="choose fewer parameters"):
        scored("woodbury", damping=DAMPING)
