import math

import numpy as np
import pytest
from scipy import stats

from jaxunlearn.evaluation.retrained.distance import retrained_distance

DRAWS = np.random.default_rng(0)


def test_the_distance_is_its_definition():
    others = {"loss": DRAWS.normal(size=7) + 3, "rouge": DRAWS.random(7)}
    values = {"rouge": 0.4, "loss": 2.0}
    found = retrained_distance(values, others)
    assert list(found) == ["rouge", "loss"]
    for name, distance in found.items():
        r, v = others[name], values[name]
        m, s = np.mean(r), np.sqrt(np.sum((r - np.mean(r)) ** 2) / 6)
        assert distance.value == v
        assert distance.models == 7
        assert distance.mean == pytest.approx(m)
        assert distance.z == pytest.approx((v - m) / s)
        half = stats.t.ppf(0.975, 6) * s * math.sqrt(8 / 7)
        assert [distance.low, distance.high] == pytest.approx([m - half, m + half])
        c = (np.sum(r) + v) / 8
        out = sum(abs(x - c) >= abs(v - c) for x in r)
        assert distance.p_value == (1 + out) / 8


def test_a_retrained_model_itself_is_within_as_often_as_it_says():
    # Not Gaussian for the p-value, which asks for nothing; Gaussian for the interval.
    small = within = 0
    for _ in range(1000):
        skewed = DRAWS.exponential(size=20)
        d = retrained_distance({"s": skewed[0]}, {"s": skewed[1:]})["s"]
        small += d.p_value <= 0.1
        normal = DRAWS.normal(size=6)
        d = retrained_distance({"s": normal[0]}, {"s": normal[1:]}, level=0.8)["s"]
        within += d.low <= normal[0] <= d.high
    assert abs(small / 1000 - 0.1) < 4 * math.sqrt(0.09 / 1000)
    assert abs(within / 1000 - 0.8) < 4 * math.sqrt(0.16 / 1000)


def test_units_and_the_order_of_models_do_not_matter():
    others = DRAWS.normal(size=9)
    one = retrained_distance({"s": 0.7}, {"s": others})["s"]
    scaled = {"s": DRAWS.permutation(others) * 100 + 5}
    other = retrained_distance({"s": 75.0}, scaled)["s"]
    assert other.z == pytest.approx(one.z)
    assert other.p_value == one.p_value
    assert (other.low - 5) / 100 == pytest.approx(one.low)
    mirrored = retrained_distance({"s": -0.7}, {"s": -others})["s"]
    assert mirrored.z == pytest.approx(-one.z)
    assert mirrored.p_value == one.p_value


def test_far_out_and_constant_scores():
    far = retrained_distance({"s": 1e3}, {"s": DRAWS.normal(size=19)})["s"]
    assert far.p_value == 1 / 20
    same = retrained_distance({"s": 0.1}, {"s": [0.1, 0.1, 0.1]})["s"]
    assert same[:6] == (0.1, 0.1, 0.0, 0.1, 0.1, 1.0)
    above = retrained_distance({"s": 0.2}, {"s": [0.1, 0.1, 0.1]})["s"]
    below = retrained_distance({"s": 0.0}, {"s": [0.1, 0.1, 0.1]})["s"]
    assert (above.z, below.z) == (math.inf, -math.inf)
    assert above.p_value == 0.25


@pytest.mark.parametrize(
    ("values", "others", "options", "message"),
    [
        ({"a": 1.0}, {"b": [1.0, 2.0]}, {}, "a, b: in only one of"),
        ({"a": 1.0}, {"a": [1.0]}, {}, "a: .* at least two"),
        ({"a": 1.0}, {"a": [[1.0, 2.0]]}, {}, "a: .* at least two"),
        ({"a": np.nan}, {"a": [1.0, 2.0]}, {}, "a: a value is not finite"),
        ({"a": 1.0}, {"a": [1.0, np.inf]}, {}, "a: a value is not finite"),
        ({"a": 1.0}, {"a": [1.0, 2.0]}, {"level": 1.0}, "level=1.0"),
    ],
)
def test_misuse_is_refused(values, others, options, message):
    with pytest.raises(ValueError, match=message):
        retrained_distance(values, others, **options)
