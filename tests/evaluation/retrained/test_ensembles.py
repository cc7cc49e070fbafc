import math

import numpy as np
import pytest

from jaxunlearn.evaluation.retrained import ensembles
from jaxunlearn.evaluation.retrained.ensembles import klom, noise_floor, u_lira

DRAWS = np.random.default_rng(0)
# Examples: alike, shifted, wider, shifted far, and one of few values, many tied.
U = DRAWS.normal(size=(12, 5)) * [1, 1, 5, 1, 1] + [0, 1, 0, 60, 0]
R = DRAWS.normal(size=(9, 5))
U[:, 4], R[:, 4] = DRAWS.integers(0, 3, 12), DRAWS.integers(0, 3, 9)


def klom_of_one(u, r, *, bins, clip, floor, compat):
    """One example in plain Python."""
    u, r = ([min(max(float(x), -clip), clip) for x in v] for v in (u, r))
    low, high = min(u + r), max(u + r)
    edges = np.linspace(low, high if low < high else low + 1, bins + 1)

    def histogram(values):
        counts = [0] * bins
        for value in values:
            place = max(i for i, edge in enumerate(edges) if value >= edge)
            if place == bins and compat is None:
                place -= 1
            if place < bins:
                counts[place] += 1
        return [c / max(sum(counts), 1) for c in counts]

    pairs = zip(histogram(u), histogram(r), strict=True)
    return sum(p * math.log(p / max(q, floor)) for p, q in pairs if p > 0)


@pytest.mark.parametrize("compat", [None, "official"])
@pytest.mark.parametrize(
    "options",
    [
        {"bins": 20, "clip": 100.0, "floor": 1e-5},
        {"bins": 4, "clip": 2.0, "floor": 0.01},
        {"bins": 1, "clip": 100.0, "floor": 1e-5},
    ],
)
def test_klom_is_a_loop_over_examples(options, compat):
    found = klom(U, R, compat=compat, **options)
    expected = [
        klom_of_one(U[:, i], R[:, i], compat=compat, **options) for i in range(5)
    ]
    np.testing.assert_allclose(found.per_example, expected, rtol=1e-12, atol=1e-12)
    assert found.mean == pytest.approx(np.mean(expected))
    quoted = [found.median, found.p95, found.p99]
    assert quoted == pytest.approx(np.percentile(expected, [50, 95, 99]).tolist())


def test_klom_of_ensembles_known_in_closed_form():
    np.testing.assert_allclose(klom(R, R[::-1]).per_example, 0, atol=1e-15)
    # All of them in one bin that no oracle is in.
    far = np.full((12, 5), -40.0)
    np.testing.assert_allclose(klom(far, R).per_example, math.log(1e5))
    # Half of them there, half as the oracles.
    same = np.zeros((4, 1))
    half = np.array([[0.0], [0.0], [9.0], [9.0]])
    expected = 0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 1e-5)
    assert klom(half, same).mean == pytest.approx(expected)
    # Everything beyond the clip is one place.
    assert klom(np.full((3, 1), 500.0), np.full((3, 1), 100.0)).mean == 0


def test_the_official_code_does_not_see_the_surest_models():
    oracle = np.zeros((4, 1))
    leaking = np.array([[0.0], [0.0], [0.0], [7.0]])
    assert klom(leaking, oracle, compat="official").mean == 0
    seen = 0.75 * math.log(0.75) + 0.25 * math.log(0.25 / 1e-5)
    assert klom(leaking, oracle).mean == pytest.approx(seen)


def u_lira_of_one(u, r, *, shared=None, least=1e-6):
    """One example in plain Python: every pair is left out and judged."""

    def deviation(values, which, left):
        if shared is None:
            return max(float(np.std(values, ddof=1)), least)
        rest = np.delete(shared[which], left, axis=0)
        return max(math.sqrt(np.mean(np.var(rest, axis=0, ddof=1))), least)

    def log_density(x, values, which, left):
        s = deviation(values, which, left)
        return -0.5 * ((x - np.mean(values)) / s) ** 2 - math.log(s)

    right = area = 0.0
    for i in range(len(u)):
        for j in range(len(r)):
            rest = (np.delete(u, i), 0, i), (np.delete(r, j), 1, j)
            of_u, of_r = (
                log_density(x, *rest[0]) - log_density(x, *rest[1])
                for x in (u[i], r[j])
            )
            right += (np.sign(of_u) + 1) / 4 + (np.sign(-of_r) + 1) / 4
            area += (np.sign(of_u - of_r) + 1) / 2
    pairs = len(u) * len(r)
    return right / pairs, area / pairs


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("at_a_time", [1, 300, 2**21])
def test_u_lira_is_a_loop_over_examples_and_pairs(shared, at_a_time, monkeypatch):
    monkeypatch.setattr(ensembles, "PAIRS_AT_A_TIME", at_a_time)
    found = u_lira(U, R, shared_variance=shared)
    expected = [
        u_lira_of_one(U[:, i], R[:, i], shared=(U, R) if shared else None)
        for i in range(5)
    ]
    accuracy, auc = np.transpose(expected)
    np.testing.assert_allclose(found.accuracy_per_example, accuracy, atol=1e-12)
    np.testing.assert_allclose(found.auc_per_example, auc, atol=1e-12)
    assert found.accuracy == pytest.approx(accuracy.mean())
    assert found.auc == pytest.approx(auc.mean())


@pytest.mark.parametrize("models", [(3, 3), (4, 9), (20, 20)])
def test_u_lira_is_at_chance_where_there_is_nothing_to_tell(models):
    draws = np.random.default_rng(1)
    u, r = (draws.normal(size=(m, 4000)) for m in models)
    found = u_lira(u, r)
    for values in (found.accuracy_per_example, found.auc_per_example):
        error = values.std() / math.sqrt(len(values))
        assert abs(values.mean() - 0.5) < 4 * error


def test_u_lira_tells_what_is_apart():
    found = u_lira(U[:, :1] + 30, R[:, :1])
    assert found.accuracy == found.auc == 1
    # Also what differs in width alone, which no threshold on a mean would.
    draws = np.random.default_rng(2)
    wide = u_lira(draws.normal(size=(40, 50)) * 20, draws.normal(size=(40, 50)))
    assert wide.auc > 0.9
    # And constants: the least deviation keeps their Gaussians proper.
    assert u_lira(np.ones((3, 1)), np.zeros((3, 1))).accuracy == 1
    assert u_lira(np.ones((3, 1)), np.ones((3, 1))).auc == 0.5


@pytest.mark.parametrize("measure", [klom, u_lira])
def test_the_order_of_models_and_the_other_examples_do_not_matter(measure):
    found = measure(U, R)
    models = measure(DRAWS.permutation(U), DRAWS.permutation(R))
    order = DRAWS.permutation(5)
    examples = measure(U[:, order], R[:, order])
    for name in found._fields:
        value = np.asarray(getattr(found, name))
        np.testing.assert_allclose(getattr(models, name), value, atol=1e-12)
        if value.ndim:
            np.testing.assert_allclose(getattr(examples, name), value[order])


def test_u_lira_is_symmetric():
    one, other = u_lira(U, R), u_lira(R, U)
    np.testing.assert_allclose(one.auc_per_example, other.auc_per_example)


def test_the_noise_floor_is_that_of_halves_without_a_difference():
    draws = np.random.default_rng(3)
    retrained = draws.normal(size=(40, 50))
    floor = noise_floor(lambda u, r: klom(u, r).p95, retrained, splits=10)
    again = noise_floor(lambda u, r: klom(u, r).p95, retrained, splits=10)
    np.testing.assert_array_equal(floor, again)
    fresh = klom(draws.normal(size=(20, 50)), draws.normal(size=(20, 50))).p95
    assert floor.min() * 0.8 < fresh < floor.max() * 1.2
    assert klom(draws.normal(size=(20, 50)) + 3, retrained[:20]).p95 > floor.max()
    # The halves have no model in common, and miss none.
    halves = []
    noise_floor(lambda u, r: halves.append((u, r)) or 0.0, np.arange(7.0)[:, None])
    for u, r in halves:
        assert len(u) == 3
        assert sorted(np.concatenate([u, r]).ravel()) == list(range(7))
    for bad, splits in ((retrained[:1], 3), (retrained, 0)):
        with pytest.raises(ValueError, match="at least 2 and 1"):
            noise_floor(lambda u, r: 0.0, bad, splits=splits)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: klom(U, R[:, :4]), r"shape \(12, 5\) and \(9, 4\)"),
        (lambda: klom(U[0], R), r"shape \(5,\)"),
        (lambda: klom(U[:0], R), "at least 1 models"),
        (lambda: klom(U[:, :0], R[:, :0]), "1 example"),
        (lambda: klom(U * np.nan, R), "not finite"),
        (lambda: klom(U, R, bins=0), "bins=0"),
        (lambda: klom(U, R, clip=0.0), "clip=0.0"),
        (lambda: klom(U, R, floor=0.0), "floor=0.0"),
        (lambda: klom(U, R, compat="easydub"), "compat='easydub'"),
        (lambda: u_lira(U[:2], R), "at least 3 models"),
        (lambda: u_lira(U, R + np.inf), "not finite"),
        (lambda: u_lira(U, R, least_deviation=0.0), "least_deviation=0.0"),
    ],
)
def test_misuse_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
