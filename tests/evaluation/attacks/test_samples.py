import itertools

import jax
import numpy as np
import pytest

from jaxunlearn.evaluation.attacks import branching, expected_best, sampling
from jaxunlearn.evaluation.attacks.samples import doublings


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_expected_best_is_the_mean_over_all_subsets(k):
    scores = np.random.default_rng(0).integers(4, size=(3, 5)) / 3
    slow = np.mean(
        [
            scores[:, list(chosen)].max(axis=1)
            for chosen in itertools.combinations(range(5), k)
        ],
        axis=0,
    )
    np.testing.assert_allclose(expected_best(scores, k), slow, rtol=1e-12)


def test_the_expected_best_of_many_draws_stays_finite():
    scores = np.random.default_rng(1).uniform(size=(2, 2000))
    assert np.isfinite(expected_best(scores, 1000)).all()


@pytest.mark.parametrize("k", [0, 6])
def test_more_draws_than_there_are(k):
    with pytest.raises(ValueError, match=f"k={k}: 1 to 5"):
        expected_best(np.zeros((1, 5)), k)


@pytest.mark.parametrize(
    ("largest", "found"), [(1, (1,)), (3, (1, 2, 3)), (8, (1, 2, 4, 8))]
)
def test_doublings(largest, found):
    assert doublings(largest) == found


@pytest.fixture(scope="module")
def asked(model, params, tokenizer, records):
    prompts = [f"Question: {r['question']}\nAnswer:" for r in records]
    return (model, params, tokenizer, prompts)


@pytest.fixture(scope="module")
def greedy(asked):
    from jaxunlearn.evaluation.text.greedy import answers

    return answers(*asked, max_new_tokens=3)


def test_draws(asked, greedy):
    settings = {"samples": 3, "max_new_tokens": 3, "key": jax.random.key(0)}
    found = sampling(*asked, greedy, **settings)
    assert found.strengths == (0, 1, 2, 3)
    assert (found.values[0] == 1).all()  # the greedy answers are the truth here
    assert (np.diff(found.values[1:], axis=0) >= 0).all()
    again = sampling(*asked, greedy, **settings)
    np.testing.assert_array_equal(found.values, again.values)


def test_branches_begin_greedily_and_reach_every_first_token(asked, greedy, tokenizer):
    model, params, _, prompts = asked
    found = branching(*asked, greedy, branches=5, max_new_tokens=3)
    assert found.strengths == (0, 1, 3, 4)
    assert (found.values[0] == 1).all()
    # A truth of one word is its own first token: found as soon as its rank is tried.
    ids = tokenizer(prompts[0])["input_ids"]
    logits = np.asarray(model.logits(params, {"input_ids": np.array([ids])}))[0, -1]
    order = [i for i in np.argsort(-logits) if i > 1]
    ranks = [int(np.flatnonzero(np.argsort(-logits) == order[i])[0]) for i in (0, 3)]
    for rank, token in zip(ranks, (order[0], order[3]), strict=True):
        truth = tokenizer.decode([int(token)])
        one = branching(
            *(model, params, tokenizer, prompts[:1], [truth]),
            **{"branches": 5, "max_new_tokens": 3},
        )
        reached = np.array(one.strengths) >= rank
        assert reached.any()
        assert (one.values[reached, 0] == 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"samples": 0}, "samples=0"), ({"temperature": 0.0}, "temperature=0.0")],
)
def test_bad_draws(asked, greedy, options, message):
    with pytest.raises(ValueError, match=message):
        sampling(*asked, greedy, key=jax.random.key(0), **options)


@pytest.mark.parametrize("branches", [0, 98])
def test_bad_branches(asked, greedy, branches):
    with pytest.raises(ValueError, match=f"branches={branches}: 1 to 97"):
        branching(*asked, greedy, branches=branches)
