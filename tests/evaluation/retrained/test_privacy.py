import math

import numpy as np
import pytest

from jaxunlearn.evaluation.retrained import privacy as module
from jaxunlearn.evaluation.retrained.privacy import DELTA, epsilon, forgetting_quality

DRAWS = np.random.default_rng(0)
# Examples: alike, shifted, wider, far apart, few values, narrow within wide, two humps.
U = np.stack(
    [
        DRAWS.normal(size=11),
        DRAWS.normal(size=11) + 1,
        DRAWS.normal(size=11) * 8,
        DRAWS.normal(size=11) + 40,
        DRAWS.integers(0, 4, 11),
        DRAWS.normal(size=11) * 0.5 + 1,
        DRAWS.normal(size=11) + 6 * np.sign(DRAWS.normal(size=11)),
    ],
    axis=1,
)
R = DRAWS.normal(size=(8, 7)) * [1, 1, 1, 1, 1, 9, 1]
R[:, 4] = DRAWS.integers(0, 4, 8)


def between(values):
    """A point within each gap between values, and one beyond either end."""
    values = sorted(set(values))
    gaps = zip(values, values[1:], strict=False)
    return [values[0] - 1, *((a + b) / 2 for a, b in gaps), values[-1] + 1]


def worth(pos, neg, rule, cap):
    """The epsilon of one rule."""
    fnr = np.mean([not rule(x) for x in pos])
    fpr = np.mean([rule(x) for x in neg])
    if fnr == fpr == 0:
        return cap
    if fnr == 0 or fpr == 0:
        return 0.0
    ratios = (1 - DELTA - fpr) / fnr, (1 - DELTA - fnr) / fpr
    return min(max([0.0, *(math.log(x) for x in ratios if x > 0)]), cap)


def epsilon_of_one(u, r, *, buffer, cap=50.0):
    """One example in plain Python; the official families on a grid of eighths."""
    pos, neg = (r, u) if np.median(r) > np.median(u) else (u, r)
    found = [worth(pos, neg, lambda x, t=t: x >= t, cap) for t in between([*u, *r])]
    peaky, wide = (neg, pos) if np.ptp(pos) >= np.ptp(neg) else (pos, neg)
    top, width = max(peaky), np.ptp(peaky)
    if math.isinf(buffer):
        points = between([*u, *r])
        pairs = [(a, b) for i, a in enumerate(points) for b in points[i + 1 :]]
    else:
        grid = np.arange(-buffer, buffer + 1 / 8, 1 / 8)
        pairs = [(top + b - width + a, top + b) for b in grid for a in grid]
    for a, b in pairs:
        found.append(worth(peaky, wide, lambda x, a=a, b=b: a <= x <= b, cap))
    return max(found)


def test_epsilon_is_a_loop_over_examples_and_rules():
    found = epsilon(U, R, buffer=math.inf, peaked=0)
    expected = [epsilon_of_one(U[:, i], R[:, i], buffer=math.inf) for i in range(7)]
    np.testing.assert_allclose(found.per_example, expected, rtol=1e-12, atol=1e-12)
    assert found.per_example[3] == 50
    assert found.mean == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("buffer", [0.0, 0.25, 0.5])
def test_the_buffers_admit_what_a_grid_of_thresholds_finds(buffer):
    # Margins are quarters, so a grid of eighths misses no set of margins.
    draws = np.random.default_rng(0)
    spreads = draws.choice([2, 8, 20], size=(2, 400))
    u = draws.integers(-spreads[0], spreads[0] + 1, size=(7, 400)) / 4
    r = draws.integers(-spreads[1], spreads[1] + 1, size=(5, 400)) / 4
    found = epsilon(u, r, buffer=buffer, peaked=0).per_example
    expected = [epsilon_of_one(u[:, i], r[:, i], buffer=buffer) for i in range(400)]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    wider = epsilon(u, r, buffer=math.inf, peaked=0).per_example
    assert (found <= wider + 1e-12).all()
    assert (found < wider - 0.1).any()


def test_equal_ensembles_have_epsilon_zero():
    found = epsilon(R, R[::-1])
    np.testing.assert_array_equal(found.per_example, 0)
    assert found.score == 1
    constant = np.ones((3, 2))
    assert epsilon(constant, constant).score == 1


@pytest.mark.parametrize("models", [(3, 3), (8, 8), (5, 20), (40, 10)])
def test_a_finite_number_of_models_bounds_epsilon(models):
    draws = np.random.default_rng(1)
    n, m = models
    # One error of each kind, and as many models as there are on the right sides.
    u = np.full((n, 1), 10.0)
    r = np.zeros((m, 1))
    u[0], r[0] = -1.0, 11.0
    found = epsilon(u, r, peaked=0)
    largest = max(math.log(n * (1 - DELTA - 1 / m)), math.log(m * (1 - DELTA - 1 / n)))
    assert found.largest == pytest.approx(largest)
    assert found.per_example[0] == pytest.approx(largest)
    if n == m:
        assert largest == pytest.approx(math.log(n * (1 - DELTA) - 1))
    # Short of perfect separation there is no more, whatever the margins.
    for spread in (0.1, 1.0, 3.0):
        values = epsilon(
            draws.normal(size=(n, 300)) * spread + 1, draws.normal(size=(m, 300))
        ).per_example
        assert ((values <= largest + 1e-12) | (values == 50)).all()


def test_what_is_apart_or_far_narrower_has_the_largest_epsilon():
    assert epsilon(U[:, :1] + 30, R[:, :1]).per_example[0] == 50
    # A hundred unlearned models at one place amid the retrained ones.
    wide = np.linspace(-10, 10, 100)[:, None]
    narrow = np.full((100, 1), wide[50, 0]) + np.linspace(-1e-3, 1e-3, 100)[:, None]
    assert epsilon(narrow, wide).per_example[0] == 50
    assert epsilon(narrow, wide, peaked=0).per_example[0] < 5
    assert epsilon(narrow, wide, cap=7.0).mean == 7


def test_the_score_halves_with_each_bucket():
    # 21 models: ceil(log 20) = 3, six buckets of a half.
    values = np.array([0.0, 0.49, 0.5, 1.0, 2.99, 3.0, 50.0])
    points = np.array([1, 1, 0.5, 0.25, 1 / 32, 0, 0])
    for i, value in enumerate(values):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "one_sided", lambda *_, v=value: np.array([v]))
            patch.setattr(module, "two_sided", lambda *_: np.zeros(1))
            found = epsilon(np.arange(21.0)[:, None], np.arange(30.0)[:, None])
        assert found.score == points[i]


def test_models_examples_and_their_chunks_do_not_matter(monkeypatch):
    found = epsilon(U, R)
    order = DRAWS.permutation(7)
    others = [
        epsilon(DRAWS.permutation(U), DRAWS.permutation(R)).per_example,
        epsilon(U[:, order], R[:, order]).per_example[np.argsort(order)],
        epsilon(U + 3, R + 3).per_example,
        epsilon(R, U).per_example,
    ]
    monkeypatch.setattr(module, "INTERVALS_AT_A_TIME", 900)
    others.append(epsilon(U, R).per_example)
    for other in others:
        np.testing.assert_allclose(other, found.per_example, rtol=1e-9)


def quality_of_one(u, r, thresholds):
    """The reference formula in plain Python."""
    qualities = []
    for t in thresholds:
        for pos, neg in ((u, r), (r, u)):
            fnr, fpr = np.mean(pos < t), np.mean(neg >= t)
            if fnr == fpr == 0:
                qualities.append(0.0)
            elif max(fnr, fpr) >= 1 - DELTA:
                qualities.append(1.0)
            else:
                a, b = (min(max(x, 1e-10), 1 - DELTA - 1e-10) for x in (fpr, fnr))
                logs = (
                    math.log(1 - DELTA - a) - math.log(b),
                    math.log(1 - DELTA - b) - math.log(a),
                )
                qualities.append(2 ** -max(0, min(logs)))
    return min(qualities)


def test_forgetting_quality_is_a_loop_over_thresholds():
    for i in range(7):
        u, r = U[:, i], R[:, i]
        found = forgetting_quality(u, r)
        assert found == pytest.approx(quality_of_one(u, r, [*u, *r]), rel=1e-12)
        # A finer grid finds no better threshold.
        fine = np.linspace(-60, 60, 20001)
        assert forgetting_quality(u, r, thresholds=fine) >= found - 1e-12
        assert forgetting_quality(r, u) == pytest.approx(found)
        assert forgetting_quality(u[::-1], r[::-1]) == found
        grid = np.linspace(-2.5, 10, 51)
        clipped = np.clip(u, -2.5, 10), np.clip(r, -2.5, 10)
        official = quality_of_one(*clipped, grid)
        assert forgetting_quality(u, r, thresholds=grid[1:]) == pytest.approx(official)


def test_forgetting_quality_has_both_ends():
    assert forgetting_quality(U[:, 0], U[::-1, 0]) == 1
    assert forgetting_quality(U[:, 3], R[:, 3]) == 0
    assert forgetting_quality([1.0], [1.0, 1.0]) == 1
    # A tenth of each on the wrong side: epsilon is log 9 by either ratio.
    one = np.arange(10.0)
    one[0] = 30
    other = np.arange(10.0) + 20
    other[0] = 0.5
    assert forgetting_quality(one, other) == pytest.approx(
        2 ** -math.log((0.9 - DELTA) / 0.1)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: epsilon(U[:2], R), "at least 3 models"),
        (lambda: epsilon(U, R[:, :2]), "of the same examples"),
        (lambda: epsilon(U, R * np.nan), "not finite"),
        (lambda: epsilon(U, R, delta=0.5), "delta=0.5"),
        (lambda: epsilon(U, R, buffer=-1.0), "buffer=-1.0"),
        (lambda: epsilon(U, R, peaked=-1.0), "peaked=-1.0"),
        (lambda: epsilon(U, R, cap=0.0), "cap=0.0"),
        (lambda: forgetting_quality([], [1.0]), "unlearned is empty"),
        (lambda: forgetting_quality([1.0], [np.inf]), "retrained is empty or"),
        (lambda: forgetting_quality([1.0], [1.0], delta=1.0), "delta=1.0"),
        (lambda: forgetting_quality(U, R[0]), "one score an example"),
        (lambda: forgetting_quality([1.0], [1.0], thresholds=[]), "thresholds"),
    ],
)
def test_misuse_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
