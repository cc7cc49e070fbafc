"""What `jaxunlearn unlearn` refuses before it reads anything."""

import dataclasses
import json

import pytest

from jaxunlearn.cli import main
from jaxunlearn.commands.config import with_config
from jaxunlearn.commands.unlearn_arguments import check_own, for_arguments, named_method
from jaxunlearn.commands.unlearn_checks import check, limits_of
from jaxunlearn.commands.unlearn_methods import options_class, own_fields
from jaxunlearn.commands.unlearn_options import Options
from jaxunlearn.commands.unlearn_words import price_warning
from jaxunlearn.unlearning import METHODS
from jaxunlearn.unlearning.limits import price_limit

ASCENT = {"method": "gradient_ascent", "forget": "f.json"}
FIRST = {"method": "first_epoch", "run": "RUN", "ids": (0, 1)}
ITERATIVE = FIRST | {"mode": "iterative"}
VALUES = {
    "mode": "oneshot",
    "part": "tied",
    "epochs": (2,),
    "weight": "sgd",
    "scale": 0.5,
    "max_exposures": 2,
    "learning_rate": 0.1,
    "max_steps": 9,
}
NAN, INF = float("nan"), float("inf")


READS = {
    ("first_epoch", "oneshot"): ("mode", "part", "epochs", "weight", "scale"),
    ("first_epoch", "iterative"): ("mode", "part", "epochs", "weight", "max_exposures"),
    ("gradient_ascent", None): ("learning_rate", "max_steps"),
}


def options(**given):
    given = {"model": "m", "retain": "r.json", "out": "o"} | given
    method = given.get("method")
    if method is None:
        return Options(**given)
    iterative = method == "first_epoch" and given.get("mode") == "iterative"
    row = "iterative" if iterative else method
    check_own(row, given, method)
    return options_class(METHODS[row], method)(**given)


def way(key):
    method, mode = key
    return ASCENT if method == "gradient_ascent" else FIRST | {"mode": mode}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("key", READS)
def test_an_option_is_read_or_refused_by_name(key, name):
    given = way(key) | ({} if name == "mode" else {name: VALUES[name]})
    if name == "mode" and key[0] == "gradient_ascent":
        given = ASCENT | {"mode": "oneshot"}
    if name in READS[key]:
        check(options(**given))
        assert name == "mode" or options(**given).own[name] == VALUES[name]
    else:
        with pytest.raises(ValueError, match=f"{name}=.* has no effect with --method"):
            check(options(**given))


def test_an_option_of_another_method_is_refused_as_it_was_typed(capsys):
    with pytest.raises(SystemExit) as status:
        main(["unlearn", "npo", "--part", "tied"])
    assert status.value.code == 2
    told = capsys.readouterr().err
    assert "--part tied has no effect with --method npo: leave it out, or use" in told


def test_a_costly_result_is_warned_of_whatever_the_method_s_limit():
    assert price_warning(0.02) is None
    told = price_warning(0.5)
    assert "rose by 0.500 nats a token, more than 0.02" in told
    assert "allowed" not in told  # by default most methods have no limit


def test_defaults_are_the_function_s():
    first = {"part": "output", "epochs": (1,), "weight": "unit"}
    assert options(**FIRST).settings == {"mode": "oneshot", **first, "scale": None}
    told = options(**ITERATIVE).settings
    assert told == {"mode": "iterative", **first, "max_exposures": 1}
    ascent = options(**ASCENT).settings
    assert (ascent["learning_rate"], ascent["max_steps"]) == (None, 500)
    npo = options(method="npo", forget="f.json").own
    assert (npo["beta"], npo["retain_term"], npo["learning_rate"]) == (0.1, "nll", 1e-5)


def test_no_method_s_option_hides_one_that_all_have():
    shared = {field.name for field in dataclasses.fields(Options)}
    for name, row in METHODS.items():
        own = [field[0] for field in own_fields(row)]
        assert not shared & set(own), name
        assert len(set(own)) == len(own), name


def test_a_name_before_the_options_is_the_method():
    assert named_method(["unlearn", "npo", "--beta", "1"]) == [
        *("unlearn", "--method", "npo", "--beta", "1")
    ]
    with pytest.raises(ValueError, match="method='magic': one of first_epoch"):
        named_method(["unlearn", "magic"])
    with pytest.raises(ValueError, match="beta=1 has no effect .* --method npo"):
        for_arguments(check, ["unlearn", "--method", "grad_diff", "--beta", "1"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *((FIRST | {"scale": x}, "scale=") for x in (0.0, -1.0, NAN, INF)),
        *((ASCENT | {"learning_rate": x}, "learning_rate=") for x in (0.0, -1.0, NAN)),
        *((ASCENT | {"target": x}, "target=") for x in ("-1", "nan", "inf", "-inf")),
        *((ASCENT | {"target": x}, "target=") for x in ("0", "far", "")),
        *((ASCENT | {"batch_size": x}, "batch_size=") for x in (0, -1)),
        *((ASCENT | {"retain_size": x}, "retain_size=") for x in (0, -1)),
        *((ASCENT | {"max_steps": x}, "max_steps=") for x in (0, -3)),
        *((ITERATIVE | {"max_exposures": x}, "max_exposures=") for x in (0, -1)),
        *((ASCENT | {"max_relative_step": x}, "max_relative_s") for x in (-0.1, NAN)),
        *(
            (ASCENT | {"max_retain_increase": x}, "max_retain_increase=")
            for x in ("-1%", "nan", "inf nats", "2 percent", "", "-0.1nats", "1e")
        ),
        (FIRST | {"ids": (0, -1)}, "ids=0 -1"),
        (FIRST | {"ids": (3, 3)}, "ids=3 3"),
        (FIRST | {"epochs": (0,)}, "epochs=0"),
        (FIRST | {"epochs": (1, 1)}, "epochs=1 1"),
        (FIRST | {"threshold": 0.9}, "threshold=0.9 has no effect beside ids"),
        (FIRST | {"match_by": "fuzzy"}, "match_by=fuzzy has no effect beside ids"),
        (ASCENT | {"match_by": "exact"}, "match_by=exact has no effect without"),
        (ASCENT | {"threshold": 0.9}, "threshold=0.9 has no effect without"),
        *(
            (ASCENT | {"data": "d", "threshold": x}, "threshold=")
            for x in (0, 1.5, NAN)
        ),
        (FIRST | {"data": "d.json"}, "data=d.json has no effect beside run=RUN"),
        (FIRST | {"request": "x"}, "exactly one of --forget"),
        ({"method": "gradient_ascent"}, "exactly one of --forget"),
        (ASCENT | {"forget": None, "ids": (1,)}, "pass --run RUN, or --data FILE"),
        (FIRST | {"run": None, "data": "d"}, "--method first_epoch replays"),
        (ASCENT | {"target": "before"}, "--target before needs --run"),
        (ASCENT | {"target": "unseen"}, "--target unseen needs --unseen"),
        *((FIRST | {x: None}, f"--{x} is missing") for x in ("model", "retain", "out")),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(given, message):
    with pytest.raises(ValueError, match=message):
        check(options(**given))


def test_listing_matches_needs_neither_model_nor_place():
    check(Options(list_matches=True, data="d.json", request="Mara Velkin"))
    with pytest.raises(ValueError, match="exactly one of"):
        check(Options(list_matches=True, data="d.json"))


@pytest.mark.parametrize(
    ("text", "share", "nats"),
    [
        ("2%", 0.02, None),
        ("0.5 %", 0.005, None),
        ("0.3", 0.3, None),
        ("0.05nats", None, 0.05),
        (" 1e-3 nats", None, 1e-3),
        ("1nat", None, 1.0),
        ("none", None, None),
        ("0%", 0.0, None),
    ],
)
def test_a_price_is_a_share_or_nats_or_none(text, share, nats):
    assert price_limit(text).keys() == {"max_retain_nats", "max_retain_increase"}
    limits = limits_of(options(**FIRST, max_retain_increase=text))
    assert limits.max_retain_increase == pytest.approx(share)
    assert limits.max_retain_nats == pytest.approx(nats)


def test_only_first_epoch_has_a_price_limit_by_default():
    assert limits_of(options(**FIRST)).max_retain_nats == 0.02
    assert limits_of(options(**ASCENT)).max_retain_nats is None


def test_a_config_comes_before_what_is_typed(tmp_path):
    path = tmp_path / "unlearning.json"
    kept = {"run": "R", "ids": [0, 2], "epochs": [1, 2], "scale": 0.5, "flag": True}
    path.write_text(json.dumps({"options": kept | {"layers": None, "other": False}}))
    got = with_config(["unlearn", "--out", "o", "--config", str(path), "--scale", "2"])
    stored = ["--run=R", "--ids", "0", "2", "--epochs", "1", "2", "--flag"]
    assert got == ["unlearn", *stored, "--out", "o", "--scale", "2"]
    assert with_config(["unlearn", f"--config={path}"])[-2:] == [
        "--scale=0.5",
        "--flag",
    ]


def test_what_is_named_anew_replaces_what_the_config_names(tmp_path):
    path = tmp_path / "unlearning.json"
    kept = {"ids": [0], "forget_sha256": "a", "run": "R", "layers": "h/"}
    path.write_text(json.dumps({"options": kept}))
    got = with_config(["unlearn", "--config", str(path), "--request=Mara"])
    assert got == ["unlearn", "--run=R", "--layers=h/", "--request=Mara"]
    got = with_config(["unlearn", "--config", str(path), "--data", "d"])
    assert "--run=R" not in got


@pytest.mark.parametrize("content", ["[]", "{}", '{"options": 3}', "{", '{"a": NaN}'])
def test_a_config_without_options_is_named(tmp_path, content):
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"c\.json"):
        with_config(["unlearn", "--config", str(path)])
    with pytest.raises(ValueError, match="names no file"):
        with_config(["unlearn", "--config"])
