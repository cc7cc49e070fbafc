import doctest
import importlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.models import GPT2, GPT2Config

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture
def paper(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    return lambda name: importlib.import_module(f"experiments.paper.{name}")


def around(mean, half=0.001):
    return {"mean": mean, "low": mean - half, "high": mean + half, "missing": 0}


def row(*, literal=0.0, common=0.0, dearer=0.0, nearer=0.0, reached=5, space=0.2):
    return {
        "literal": around(literal),
        "common": around(common),
        "reached": reached,
        "matched": {
            "retain_rise": around(0.1 + dearer),
            "behaviour": around(0.2 + nearer),
            "scale": around(3.0),
        },
        "dearer": {"retain_rise": around(dearer), "behaviour": around(nearer)},
        "bytes_share": space,
    }


def made_up(rest=None, last=None, alone=None):
    return {
        "seeds": 5,
        "groups": {
            "everything": row(literal=1, common=1, space=1.0),
            "all but token embedding": row(**(rest or {})),
            "last two blocks": row(**(last or {})),
            "token embedding": row(**(alone or {})),
        },
        "rank agreement with literal": {"norm": around(0.9), "slope": around(1.0)},
    }


def verdict_on(layers, part, **given):
    return layers.judged(made_up(**given))[part][0]


@pytest.mark.parametrize(
    ("rest", "verdict"),
    [
        ({"literal": 0.1, "common": 0.2, "dearer": 0.3}, "reproduces"),
        ({"literal": 0.1, "common": 0.2, "reached": 4}, "reproduces"),
        ({"literal": 0.1, "common": 0.8, "dearer": 0.3}, "partly"),
        ({"literal": 0.9, "common": 0.8, "dearer": 0.3}, "partly"),
        ({"literal": 0.9, "common": 0.8, "dearer": -0.3}, "does not reproduce"),
        ({"literal": 0.5, "common": 0.8, "dearer": -0.3}, "undecided"),
    ],
)
def test_the_embedding_is_crucial_where_the_rest_does_little_or_is_dear(
    paper, rest, verdict
):
    assert verdict_on(paper("layers"), "embedding crucial", rest=rest) == verdict


@pytest.mark.parametrize(
    ("last", "verdict"),
    [
        ({"literal": 0.01, "common": 0.0, "reached": 0}, "reproduces"),
        ({"literal": 0.01, "common": 0.0, "reached": 5}, "partly"),
        ({"literal": 0.2, "common": 0.2, "reached": 5}, "does not reproduce"),
        ({"literal": 0.05, "common": 0.2, "reached": 5}, "undecided"),
        ({"literal": 0.2, "common": 0.2, "reached": 3}, "undecided"),
    ],
)
def test_the_last_blocks_do_nothing_where_they_do_nothing_at_any_scale(
    paper, last, verdict
):
    assert verdict_on(paper("layers"), "last two blocks nothing", last=last) == verdict


@pytest.mark.parametrize(
    ("alone", "verdict"),
    [
        ({"dearer": -0.3, "nearer": -0.1}, "reproduces"),
        ({"dearer": -0.3, "nearer": -0.1, "space": 0.7}, "partly"),
        ({"dearer": -0.3, "nearer": 0.2}, "partly"),
        ({"dearer": 0.3, "nearer": 0.2}, "does not reproduce"),
        ({"dearer": -0.3, "nearer": -0.1, "reached": 4}, "does not reproduce"),
        ({"dearer": 0.3, "nearer": 0.05}, "undecided"),
    ],
)
def test_the_embedding_alone_serves_where_it_is_no_dearer(paper, alone, verdict):
    assert verdict_on(paper("layers"), "embedding alone serves", alone=alone) == verdict


def test_without_an_interval_nothing_is_decided(paper):
    judging = paper("judging")
    absent = {"mean": None, "low": None, "high": None, "missing": 5}
    assert judging.below(absent, 1.0) is None
    assert judging.raised(absent, 1.0) is None
    assert judging.told(absent) == "(no seed)"


def test_each_group_and_all_but_it_are_everything_once(paper):
    groups = paper("layer_groups")
    shapes = jax.eval_shape(lambda: GPT2(GPT2Config()).init(key=jax.random.key(0)))
    patterns = {name: layers for name, (layers, _) in groups.groups(12).items()}
    sizes = {
        name: tree.selected_size(shapes, tree.select(shapes, pattern))
        for name, pattern in patterns.items()
    }
    whole = sizes[groups.EVERYTHING]
    assert sum(sizes[name] for name in groups.disjoint(12)) == whole
    left_out = [name for name in patterns if name.startswith(groups.WITHOUT)]
    assert len(left_out) == 5
    for name in left_out:
        assert sizes[name] + sizes[name.removeprefix(groups.WITHOUT)] == whole
    assert sizes["last two blocks"] == sizes["block 11"] + sizes["block 12"]


def test_the_exact_share_of_the_embedding_of_gpt2(paper):
    shares = paper("layer_groups").gpt2_shares()
    assert shares["everything"]["parameters"] == 124_439_808
    assert shares["token embedding"]["parameters"] == 50257 * 768
    assert shares["token embedding"]["share"] == pytest.approx(0.3102, abs=1e-4)


def test_bytes_are_those_of_the_selected_layers_of_one_seed(paper):
    stored = paper("layer_groups").stored
    kernel = np.ones((2, 3, 4, 5), np.float32)  # two seeds, three layers
    kernel[0, 1, 0] = 0
    gradient = {"h": {"kernel": kernel}, "wte": np.ones((2, 7), np.float32)}
    one = jax.tree.map(lambda x: x[0], gradient)
    found = stored(gradient, tree.select(one, "^h/1/", stacked=("h",)))
    assert found == {"bytes": 4 * 20, "nonzero_bytes": 4 * 15}
    assert stored(gradient, tree.select(one, "."))["bytes"] == 4 * (60 + 7)


@pytest.mark.parametrize("name", ["layer_groups", "judging"])
def test_doctests(paper, name):
    assert doctest.testmod(paper(name), optionflags=FLAGS).failed == 0


@pytest.mark.slow
def test_the_smallest_size_runs_through(paper, monkeypatch, tmp_path):
    layers, results = paper("layers"), paper("results")
    monkeypatch.setattr(layers, "OPTIMISERS", ("adamw",))
    options = results.Options(
        size="smoke", worlds=("synthetic",), out=tmp_path, cache=tmp_path / "cache"
    )
    layers.main(options)
    written = json.loads((tmp_path / "layers.json").read_text())
    assert (tmp_path / "layers.png").read_bytes()[:4] == b"\x89PNG"
    (setting,) = written["results"]["settings"].values()
    groups = setting["groups"]

    def by_seed(name, kind):
        return np.array(groups[name][kind]["seeds"])

    parts = ["token embedding", "position embedding", "the blocks", "last norm"]
    squares = sum(by_seed(name, "norm") ** 2 for name in parts)
    np.testing.assert_allclose(squares, 1, rtol=1e-5)
    slopes = sum(by_seed(name, "slope") for name in parts)
    np.testing.assert_allclose(slopes, 1, rtol=1e-4)
    halves = by_seed("its input part", "slope") + by_seed("its output part", "slope")
    np.testing.assert_allclose(halves, by_seed("token embedding", "slope"), rtol=1e-4)
    assert by_seed("everything", "literal") == pytest.approx([1, 1])
    assert by_seed("everything", "common") == pytest.approx([1, 1])
    for name in ("token embedding", "last two blocks"):
        rise = np.array(groups[name]["matched"]["retain_rise"]["seeds"])
        less = np.array(groups[name]["dearer"]["retain_rise"]["seeds"])
        everything = np.array(groups["everything"]["matched"]["retain_rise"]["seeds"])
        np.testing.assert_allclose(less, rise - everything)
    # The smoke model has two blocks: the last two are all of them.
    assert groups["last two blocks"]["literal"] == groups["the blocks"]["literal"]
    assert len(written["verdicts"]) == 3


def test_ranks_agree_over_the_groups_that_hold_everything_once(paper):
    names = paper("layer_groups").disjoint(2)
    found = {
        name: {"norm": np.array([i, -i]), "literal": np.array([2.0 * i, 2.0 * i])}
        for i, name in enumerate(names)
    } | {"everything": {"norm": np.array([-99, 99]), "literal": np.array([99, 99])}}
    agreement = paper("layers").rank_agreement(found, "norm", 2)
    np.testing.assert_allclose(agreement, [1, -1])
