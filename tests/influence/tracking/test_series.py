"""Influence through training, against the slow way and closed forms."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import influence, tree
from jaxunlearn.influence import load_track, save_track, track, tracked_during
from jaxunlearn.models import GPT2, GPT2Config

EPS = float(np.finfo(np.float32).eps)
WIDTH, TRAIN, QUERIES = 4, 7, 3
METHODS = ("gradient_dot", "cosine", "diagonal", "hvp")
BITS = ("losses", "query_losses", "gradient_norms", "index")


def loss(params, batch):
    """Of a unit with a curved output, so that the Hessian is no constant."""
    out = jnp.tanh(batch["x"] @ params["h"]["w"].sum(0)) + params["b"]
    return jnp.where(batch["weight"] > 0, (out - batch["y"]) ** 2, 0.0)


loss.stacked = ("h",)


def data(seed, size):
    x = np.random.default_rng(seed).normal(size=(size, WIDTH)).astype(np.float32)
    weight = np.ones(size, np.float32)
    return {"x": x, "y": x[:, 0] - 0.5, "index": np.arange(size), "weight": weight}


DATA, QUERY = data(0, TRAIN), data(1, QUERIES)


def params(seed):
    draw = np.random.default_rng(seed)
    w = draw.normal(size=(2, WIDTH)).astype(np.float32)
    return {"b": jnp.float32(draw.normal()), "h": {"w": jnp.asarray(w)}}


POINTS = [params(seed) for seed in (5, 6, 7)]


def tracked(points=POINTS, train=DATA, query=QUERY, **options):
    return track(loss, points, train, query, **({"methods": METHODS} | options))


@pytest.fixture(scope="module")
def found():
    return tracked()


def assert_same(one, two, exact=True):
    for name in BITS:
        a, b = getattr(one, name), getattr(two, name)
        np.testing.assert_allclose(a, b, rtol=0, atol=0 if exact else 64 * EPS)
    assert one.scores.keys() == two.scores.keys()
    for name, a in one.scores.items():
        atol = 0 if exact else 256 * EPS * np.abs(a).max()
        np.testing.assert_allclose(a, two.scores[name], rtol=0, atol=atol)
    assert (one.groups, one.hashes) == (two.groups, two.hashes)
    assert one.coverage == two.coverage


def rows(batch):
    return [
        jax.tree.map(lambda x, i=i: x[i : i + 1], batch) for i in range(len(batch["x"]))
    ]


def flat(gradient):
    leaves = [np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(gradient)]
    return np.concatenate(leaves)


def test_the_series_is_that_of_a_loop_of_gradients(found):
    gradient = jax.grad(lambda p, one: loss(p, one)[0])
    for e, point in enumerate(POINTS):
        own = np.array([flat(gradient(point, one)) for one in rows(DATA)])
        asked = np.array([flat(gradient(point, one)) for one in rows(QUERY)])
        dots = asked @ own.T
        lengths = np.outer(np.linalg.norm(asked, axis=1), np.linalg.norm(own, axis=1))
        ravelled, back = jax.flatten_util.ravel_pytree(point)
        hessian = np.asarray(
            jax.hessian(lambda v, b=back: loss(b(v), DATA).mean())(ravelled)
        )
        curvature = np.einsum("ni,ij,nj->n", own, hessian, own) / (own**2).sum(1)
        expected = {
            "gradient_dot": dots,
            "cosine": dots / lengths,
            "hvp": curvature[None],
        }
        for name, values in expected.items():
            atol = 256 * EPS * np.abs(values).max()
            np.testing.assert_allclose(found.scores[name][e], values, rtol=0, atol=atol)
        np.testing.assert_allclose(found.losses[e], loss(point, DATA), rtol=1e-5)
        np.testing.assert_allclose(found.query_losses[e], loss(point, QUERY), rtol=1e-5)
        np.testing.assert_allclose(
            (found.gradient_norms[e] ** 2).sum(0), (asked**2).sum(1), rtol=1e-4
        )


def test_shapes_groups_and_coverage(found):
    assert found.scores["gradient_dot"].shape == (3, QUERIES, TRAIN)
    assert found.scores["hvp"].shape == (3, 1, TRAIN)
    assert found.gradient_norms.shape == (3, 3, QUERIES)
    assert found.groups == ("b", "h/0", "h/1")
    assert found.coverage == {"layers": None, "parameters": 9, "tapped": 0, "of": 9}
    assert len(set(found.hashes)) == len(found.solvers["diagonal"]) == 3
    assert found.solvers["diagonal"][0]["damping"] > 0
    assert "proponent" in found.signs["cosine"]
    assert "curvature" in found.signs["hvp"]


def test_one_checkpoint_is_influence_scores(found):
    for method in METHODS[:-1]:
        one = influence.scores(loss, POINTS[1], DATA, QUERY, method=method)
        np.testing.assert_allclose(
            found.scores[method][1],
            one.scores,
            rtol=0,
            atol=1e-6 * np.abs(one.scores).max(),
        )
        np.testing.assert_array_equal(found.index, one.index)
    options = {"damping": 0.7}
    other = tracked(POINTS[:1], methods=("diagonal",), options=options)
    one = influence.scores(loss, POINTS[0], DATA, QUERY, method="diagonal", **options)
    np.testing.assert_allclose(other.scores["diagonal"][0], one.scores, rtol=1e-5)


def test_batch_size_and_padding_do_not_matter(found):
    assert_same(found, tracked(batch_size=3), exact=False)

    def padded(batch):
        more = {k: np.concatenate([v, v[:2]]) for k, v in batch.items()}
        more["index"][-2:], more["weight"][-2:] = -1, 0
        return more

    assert_same(found, tracked(train=padded(DATA), query=padded(QUERY)), exact=False)


def test_layers_restrict_scores_norms_and_curvature(found):
    part = tracked(layers="h/1/")
    assert part.groups == ("h/1",)
    assert part.coverage == {
        **{"layers": "h/1/", "parameters": WIDTH, "tapped": 0, "of": 9}
    }
    np.testing.assert_allclose(
        part.gradient_norms[:, 0], found.gradient_norms[:, 2], rtol=1e-5
    )
    one = influence.scores(
        loss, POINTS[0], DATA, QUERY, layers="h/1/", method="gradient_dot"
    )
    np.testing.assert_allclose(part.scores["gradient_dot"][0], one.scores, rtol=1e-5)

    def only(w):
        both = POINTS[0]["h"]["w"].at[1].set(w)
        return loss({**POINTS[0], "h": {"w": both}}, DATA)

    at = POINTS[0]["h"]["w"][1]
    hessian = jax.hessian(lambda w: only(w).mean())(at)
    own = jax.jacobian(only)(at)
    expected = jnp.einsum("ni,ij,nj->n", own, hessian, own) / (own**2).sum(1)
    np.testing.assert_allclose(part.scores["hvp"][0, 0], expected, rtol=1e-3, atol=1e-5)


def test_the_curvature_of_a_quadratic_has_a_closed_form():
    rng = np.random.default_rng(3)
    half = rng.normal(size=(5, 5)).astype(np.float32)
    matrix, shifts = half @ half.T, rng.normal(size=(4, 5)).astype(np.float32)
    shifts[2] = 0.0

    def quadratic(p, batch):
        moved = p["w"] - batch["shift"]
        return 0.5 * jnp.einsum("ni,ij,nj->n", moved, matrix, moved)

    where = {"w": jnp.zeros(5)}
    batch = {"shift": shifts}
    own = -shifts @ matrix
    expected = np.einsum("ni,ij,nj->n", own, matrix, own)
    lengths = (own**2).sum(1)
    expected = expected / np.where(lengths > 0, lengths, 1)
    series = track(quadratic, [where], batch, batch, methods=("hvp",))
    np.testing.assert_allclose(series.scores["hvp"][0, 0], expected, rtol=1e-5)
    assert series.scores["hvp"][0, 0, 2] == 0  # no gradient, no direction
    # The Hessian is the same of all examples: one of them is enough.
    one = track(
        quadratic,
        [where],
        batch,
        batch,
        methods=("hvp",),
        curvature_data={"shift": shifts[:1]},
    )
    np.testing.assert_allclose(one.scores["hvp"], series.scores["hvp"], rtol=1e-5)
    # A small gradient has the same direction.
    tiny = track(quadratic, [where], {"shift": 1e-18 * shifts}, batch, methods=("hvp",))
    np.testing.assert_allclose(tiny.scores["hvp"], series.scores["hvp"], rtol=1e-5)


def test_a_second_checkpoint_compiles_nothing(found, compilations):
    new = params(9)
    compilations.clear()
    tracked([new])
    assert not compilations


def test_what_is_saved_is_loaded(found, tmp_path):
    save_track(tmp_path / "track.npz", found)
    again = load_track(tmp_path / "track.npz")
    assert_same(found, again)
    assert again.solvers == found.solvers
    assert [p.name for p in tmp_path.iterdir()] == ["track.npz"]
    with pytest.raises(ValueError, match="end its name so"):
        save_track(tmp_path / "track.txt", found)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_track(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", losses=np.zeros(2))
    with pytest.raises(ValueError, match="no influence track"):
        load_track(tmp_path / "other.npz")


def test_a_killed_run_goes_on_after_what_it_finished(found, tmp_path, monkeypatch):
    def killed():
        yield from POINTS[:2]
        raise KeyboardInterrupt

    place = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        tracked(killed(), state=place)
    from jaxunlearn.influence.tracking import series as tracking

    calls, compute = [], tracking.point_of
    monkeypatch.setattr(
        tracking, "point_of", lambda *given: calls.append(1) or compute(*given)
    )
    assert_same(found, tracked(iter(POINTS), state=place))
    assert len(calls) == 1
    with pytest.raises(ValueError, match="other parameters as checkpoint 0"):
        tracked(POINTS[::-1], state=place)
    with pytest.raises(ValueError, match="methods differ"):
        tracked(methods=("cosine",), state=place)
    with pytest.raises(ValueError, match="query differ"):
        tracked(query=data(8, QUERIES), state=place)


def test_an_evaluation_tracks_as_the_run_goes(found, tmp_path):
    place = tmp_path / "state"
    evaluate = tracked_during(loss, DATA, QUERY, methods=METHODS, state=place)
    told = [evaluate(point) for point in POINTS[:2]]
    assert told[1]["influence/query_loss"] == pytest.approx(
        float(found.query_losses[1].mean())
    )
    assert told[0]["influence/hvp"] == pytest.approx(
        float(found.scores["hvp"][0].mean())
    )
    # Taken up again at the second evaluation, which is repeated.
    evaluate = tracked_during(loss, DATA, QUERY, methods=METHODS, state=place)
    for point in POINTS[1:]:
        evaluate(point)
    assert_same(found, evaluate.track())
    with pytest.raises(ValueError, match="no checkpoint"):
        tracked_during(loss, DATA, QUERY).track()


def test_activations_are_those_of_activation_scores():
    layer = nn.Dense(1)

    def squared(p, batch):
        return (layer.apply({"params": p}, batch["x"])[:, 0] - batch["y"]) ** 2

    def other(p, batch):
        return 3 * squared(p, batch)

    point = {"kernel": jnp.ones((WIDTH, 1)), "bias": jnp.zeros(1)}
    methods = ("act_act", "act_grad")
    series = track(
        squared,
        [point],
        DATA,
        QUERY,
        methods=methods,
        query_loss=other,
        layers="kernel",
        batch_size=4,
    )
    for kind in methods:
        direct = influence.activation_scores(
            squared, point, DATA, QUERY, kind=kind, query_loss=other
        ).scores
        atol = 64 * EPS * float(np.abs(direct).max())
        np.testing.assert_allclose(series.scores[kind][0], direct, rtol=0, atol=atol)
    np.testing.assert_allclose(series.query_losses[0], other(point, QUERY), rtol=1e-5)


@pytest.mark.slow
def test_tied_gpt2_has_its_parts():
    model = GPT2(
        GPT2Config(vocab_size=97, n_positions=6, n_embd=16, n_layer=2, n_head=2)
    )
    point = model.init(key=jax.random.key(0))
    ids = np.random.default_rng(0).integers(0, 97, (2, 6)).astype(np.int32)
    batch = {"input_ids": ids, "labels": ids, "attention_mask": np.ones_like(ids)}
    series = track(model.per_example_loss, [point], batch, batch, methods=("act_act",))
    assert series.groups == ("wte", "wpe", "h/0", "h/1", "ln_f")
    whole = jax.jit(jax.jacrev(model.per_example_loss))(point, batch)
    for i, group in enumerate(series.groups):
        name, _, layer = group.partition("/")
        part = whole[name]
        if layer:
            part = jax.tree.map(lambda x, n=int(layer): x[:, n], part)
        norms = jax.vmap(tree.norm)(part)
        np.testing.assert_allclose(series.gradient_norms[0, i], norms, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": []}, "no checkpoint"),
        ({"points": POINTS[0]}, "one tree of parameters"),
        ({"points": [{"b": jnp.float32(jnp.nan), "h": POINTS[0]["h"]}]}, "NaN"),
        ({"methods": ()}, "at least one name"),
        ({"methods": "cosine"}, "at least one name"),
        ({"methods": ("tracin",)}, "no score of a single checkpoint"),
        ({"methods": ("nothing",)}, "one of"),
        ({"methods": ("cg", "influence_cg")}, "twice"),
        ({"options": {"dampening": 1.0}}, "dampening unknown"),
        ({"options": {"rank": 3}}, "rank does not go with methods="),
        ({"options": {"damping": -1.0}}, "damping=-1.0"),
        ({"layers": "nowhere"}, "matches no parameter"),
        ({"train": {"x": np.zeros((0, 2))}}, "train is empty"),
        ({"query": {**QUERY, "index": np.full(QUERIES, -1)}}, "padding only"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_misuse_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tracked(**options)


def test_checkpoints_are_of_one_model():
    grown = {"b": POINTS[0]["b"], "h": {"w": jnp.ones((3, WIDTH))}}
    with pytest.raises(ValueError, match="groups, coverage differ"):
        tracked([POINTS[0], grown], methods=("gradient_dot",))
