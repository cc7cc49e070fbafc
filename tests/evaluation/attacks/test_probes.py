import numpy as np
import pytest

from jaxunlearn.data import in_order, subset
from jaxunlearn.evaluation.attacks import (
    auc_values,
    logit_lens,
    membership_probe,
    ridge_probe,
)
from jaxunlearn.evaluation.attacks.probes import pointing_features
from jaxunlearn.evaluation.membership.roc import auc
from jaxunlearn.evaluation.text.token_pass import token_statistics


def test_the_last_layer_of_the_lens_is_the_model(model, params, data, logits_of):
    lens = logit_lens(model, params, in_order(data, batch_size=4))
    statistics = token_statistics(model, params, in_order(data))
    expected = [np.exp(s.log_probability.mean()) for s in statistics]
    assert lens.probability.strengths == (0, 1, 2)
    np.testing.assert_allclose(lens.probability.values[-1], expected, rtol=1e-4)
    for i, (example, logits) in enumerate(zip(data.examples, logits_of, strict=True)):
        ids, places = example.input_ids, np.flatnonzero(example.labels >= 0)
        ranks = [1 + np.sum(logits[t - 1] > logits[t - 1, ids[t]]) for t in places]
        found = lens.reciprocal_rank.values[-1, i]
        assert found == pytest.approx(np.mean(1 / np.array(ranks)), rel=1e-5)
    one = logit_lens(model, params, in_order(subset(data, [4]), length=20))
    np.testing.assert_allclose(
        one.probability.values[:, 0], lens.probability.values[:, 4], rtol=1e-4
    )


def test_the_plain_sum_of_pointing_features_is_the_true_logit(
    model, params, data, logits_of
):
    features = pointing_features(model, params, in_order(data, batch_size=4))
    assert features.shape == (3, 7, 16)
    for i, (example, logits) in enumerate(zip(data.examples, logits_of, strict=True)):
        ids, places = example.input_ids, np.flatnonzero(example.labels >= 0)
        true = np.mean([logits[t - 1, ids[t]] for t in places])
        assert features[-1, i].sum() == pytest.approx(true, rel=1e-4, abs=1e-5)


def test_the_probe_judges_the_other_half(model, params, data, tokens):
    records = [{"question": f"of w{i}", "answer": f"w{i}"} for i in range(40, 46)]
    holdout = tokens(records)
    sets = [in_order(x) for x in (data, holdout)]
    found = membership_probe(model, params, *sets, seed=1)
    assert found.strengths == (0, 1, 2)
    assert found.values.shape == (3, 4 + 3)
    smaller = [in_order(x, batch_size=3) for x in (data, holdout)]
    again = membership_probe(model, params, *smaller, seed=1)
    np.testing.assert_allclose(again.values, found.values, rtol=1e-6)
    with pytest.raises(ValueError, match="3 examples"):
        membership_probe(model, params, sets[0], in_order(subset(holdout, range(3))))


def test_a_probe_finds_a_direction_and_ignores_scale_and_dead_features():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, 30, 8))
    x[:, 3] += 5
    score = ridge_probe(x[:15], y[:15])
    assert auc(-score(x[15:]), -score(y[15:])) > 0.9
    scale, shift = 10.0 ** draw.uniform(-3, 3, 8), draw.normal(size=8)
    scaled = ridge_probe(x[:15] * scale + shift, y[:15] * scale + shift)
    np.testing.assert_allclose(scaled(x * scale + shift), score(x), rtol=1e-6)
    dead = ridge_probe(*(np.column_stack([a, np.ones(15)]) for a in (x[:15], y[:15])))
    found = dead(np.column_stack([x, 7 * np.ones(30)]))
    assert np.corrcoef(found, score(x))[0, 1] > 0.999
    assert (ridge_probe(np.ones((3, 2)), np.ones((4, 2)))(np.ones((5, 2))) == 0).all()


def test_ridge_is_the_solution_of_the_normal_equations():
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=(12, 4)), draw.normal(size=(5, 4)) - 0.5
    both = np.concatenate([x, y])
    center = (x.mean(axis=0) + y.mean(axis=0)) / 2
    weight = np.repeat([1 / 12, 1 / 5], [12, 5])
    z = (both - center) / both.std(axis=0)
    penalty = 0.1 * np.sum(weight[:, None] * z * z) / 17
    left = (z * weight[:, None]).T @ z + penalty * np.eye(4)
    right = z.T @ (weight * np.repeat([1.0, -1.0], [12, 5]))
    expected = z @ np.linalg.solve(left, right)
    np.testing.assert_allclose(ridge_probe(x, y)(both), expected, rtol=1e-8)


def test_auc_values_have_the_area_as_mean_and_delong_s_error():
    draw = np.random.default_rng(2)
    x, y = np.round(draw.normal(size=30) + 1, 1), np.round(draw.normal(size=20), 1)
    values = auc_values(x, y)
    area = auc(-x, -y)  # lower is more like a member there
    assert values.mean() == pytest.approx(area)
    wins = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    delong = wins.mean(1).var() / 30 + wins.mean(0).var() / 20
    assert values.var() / 50 == pytest.approx(delong)
