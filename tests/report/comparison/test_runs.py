import json

import pytest

from jaxunlearn.report import read_runs
from jaxunlearn.report.comparison.format import FORMS

ABOUT = {"format": "jaxunlearn scores", "name": "npo"}
ATTACK = {"name": "relearning", "x": "steps", "metric": "forget_loss", "curves": {}}


def _write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def _scores(path, **values):
    return _write(path, {"forget_loss": 2.0, **values})


def test_a_directory_gives_all_that_its_files_hold(compared_runs, run_directories):
    first, *_, by_hand = compared_runs
    assert first.name == "first-epoch"
    assert first.scores["forget_loss"] == 2.98
    assert first.block("reference")["count"] == 5
    assert [attack["name"] for attack in first.attacks] == [
        "relearning",
        "quantisation",
    ]
    assert list(first.not_run) == ["soft prompts"]
    assert first.sources == tuple(
        str(run_directories[0] / name) for name in ("scores.json", "attack.json")
    )
    assert by_hand.name == "by hand"
    assert set(by_hand.curves) == {"calibration", "training", "evaluation in training"}


def test_losses_of_unlearning_count_where_there_are_no_scores(compared_runs, tmp_path):
    by_hand = compared_runs[-1]
    assert by_hand.scores == {"forget_loss": 2.75, "retain_loss": 0.345}
    assert by_hand.block("original")["scores"]["forget_loss"] == 0.15
    found = {"trials": [], "losses": {"before": {"forget": 0}, "after": {"forget": 9}}}
    _write(tmp_path / "unlearning.json", found)
    _scores(tmp_path / "scores.json")
    (run,) = read_runs([tmp_path])
    assert run.scores == {"forget_loss": 2.0}
    assert run.block("original") == {}


@pytest.mark.parametrize("scale", [{}, {"scale": None}, {"scale": 0.5}])
def test_an_unlearning_of_several_steps_has_no_scale(tmp_path, scale):
    trials = [{"scale": s, "forget": s, "retain": s} for s in (1, 2)]
    _write(tmp_path / "unlearning.json", {"trials": trials, **scale})
    (run,) = read_runs([tmp_path])
    assert len(run.curves["calibration"].rows) == 2
    _write(tmp_path / "unlearning.json", {"trials": [], "scale": "far"})
    with pytest.raises(ValueError, match="scale: 'far' where a number was expected"):
        read_runs([tmp_path])


def test_trials_become_a_curve_in_the_order_of_their_size(compared_runs):
    curve = compared_runs[-1].curves["calibration"]
    assert [row[curve.x] for row in curve.rows] == [0.01, 0.02, 0.026]
    assert all(set(row) == {curve.x, "forget", "retain"} for row in curve.rows)


def test_the_area_of_a_membership_attack_is_a_score(tmp_path):
    sides = {"forget": [1.0], "holdout": [2.0], "auc": 0.75}
    path = _scores(tmp_path / "a.json", membership={"zlib": sides, "loss": sides})
    (run,) = read_runs([path])
    assert run.scores["mia_zlib_auc"] == 0.75
    path = _scores(path, membership={"zlib": sides}, mia_zlib_auc=0.5)
    assert read_runs([path])[0].scores["mia_zlib_auc"] == 0.5


def test_null_is_a_score_that_could_not_be_had_or_a_block_that_is_not_there(tmp_path):
    path = _scores(tmp_path / "a.json", uds=None, reference=None, membership=None)
    (run,) = read_runs([path])
    assert run.scores == {"forget_loss": 2.0, "uds": None}
    assert run.block("reference") == {}


def test_what_is_no_number_is_no_score(tmp_path):
    text = '{"a": 1, "b": true, "c": "x", "d": null, "e": [1]}'
    (run,) = read_runs([_write(tmp_path / "a.json", text)])
    assert set(run.scores) == {"a", "d"}
    assert run.scores["d"] is None


@pytest.mark.parametrize(
    ("name", "value", "attribute"),
    [
        ("x.json", {"about": ABOUT, "forget_loss": 1}, "scores"),
        ("x.json", {"forget_loss": 1}, "scores"),
        ("x.json", {"about": {"format": "jaxunlearn attack"}, "attacks": [ATTACK]},
         "attacks"),
        ("x.json", {"attacks": [ATTACK]}, "attacks"),
        ("x.json", {"trials": [{"scale": s, "forget": s, "retain": s} for s in (1, 2)]},
         "curves"),
        ("x.jsonl", '{"loss": {"step": 1, "loss": 2}}\n', "curves"),
    ],
)  # fmt: skip
def test_the_form_of_a_file_is_known_by_its_contents(tmp_path, name, value, attribute):
    (run,) = read_runs([_write(tmp_path / name, value)])
    filled = {n for n in ("scores", "attacks", "curves") if getattr(run, n)}
    assert filled == {attribute}
    assert run.name == ("npo" if "about" in value and attribute == "scores" else "x")


def test_files_of_different_forms_and_one_name_are_one_run(tmp_path):
    scores = _scores(tmp_path / "a.json", about=ABOUT)
    attack = {"about": {**ABOUT, "format": "jaxunlearn attack"}, "attacks": [ATTACK]}
    attack = _write(tmp_path / "b.json", attack)
    other = _scores(tmp_path / "c.json")
    merged, alone = read_runs([scores, attack, other])
    assert (merged.name, alone.name) == ("npo", "c")
    assert merged.scores
    assert len(merged.attacks) == 1
    runs = read_runs([scores, attack, other], names=["x", "y", "y"])
    assert [(r.name, bool(r.scores), len(r.attacks)) for r in runs] == [
        ("x", True, 0),
        ("y", True, 1),
    ]


def test_runs_that_call_themselves_alike_are_named_by_their_paths(tmp_path):
    paths = [_scores(tmp_path / f"{n}/scores.json", about=ABOUT) for n in ("a0.5", "b")]
    for given in (paths, [path.parent for path in paths]):
        assert [run.name for run in read_runs(given)] == ["a0.5", "b"]
    paths = [_scores(tmp_path / f"{n}/x.y.json", about=ABOUT) for n in "ab"]
    assert [run.name for run in read_runs(paths)] == ["a/x.y", "b/x.y"]


def test_one_file_given_twice_is_refused(tmp_path):
    path = _scores(tmp_path / "a.json", about=ABOUT)
    with pytest.raises(ValueError, match="two files of the form 'scores'"):
        read_runs([path, path])


def test_two_files_of_one_form_cannot_share_a_given_name(tmp_path):
    paths = [_scores(tmp_path / f"{n}.json") for n in "ab"]
    with pytest.raises(ValueError, match=r"'x' has two files.*a\.json and .*b\.json"):
        read_runs(paths, names=["x", "x"])


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], ["a", ""]])
def test_names_have_to_fit(tmp_path, names):
    paths = [_scores(tmp_path / f"{n}.json") for n in "ab"]
    with pytest.raises(ValueError, match="names="):
        read_runs(paths, names=names)


def test_no_run_is_refused():
    with pytest.raises(ValueError, match="runs is empty"):
        read_runs([])


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_runs([tmp_path / "nowhere"])


def test_a_directory_with_nothing_to_read_says_what_was_looked_for(tmp_path):
    _write(tmp_path / "run.json", {"recipe": {}})  # by itself it has no numbers
    _write(tmp_path / "other.json", {"forget_loss": 1})
    with pytest.raises(FileNotFoundError) as error:
        read_runs([tmp_path])
    for name in FORMS.values():
        assert name in str(error.value)


@pytest.mark.parametrize("name", sorted(FORMS.values()))
def test_a_file_that_was_cut_off_names_file_and_line(tmp_path, name):
    lines = ['{"loss": {"step": 1, "loss": 2}}', '{"loss": {"step"']
    text = "\n".join(lines) if name.endswith("l") else '{"a": 1,\n "b": [1,'
    path = _write(tmp_path / name, text)
    for run in (path, tmp_path):
        with pytest.raises(ValueError, match=rf"{name}: line 2 .*cut off"):
            read_runs([run])


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "scores.json"
    path.write_bytes(b"PK\xff\xfe")
    with pytest.raises(ValueError, match=r"scores\.json is no text"):
        read_runs([path])


def test_an_empty_file_is_named(tmp_path):
    path = _write(tmp_path / "scores.json", "")
    with pytest.raises(ValueError, match=r"scores\.json: line 1 "):
        read_runs([path])


@pytest.mark.parametrize(
    "value", [[1], "text", {}, {"a": "b"}, {"about": {"format": "other"}, "a": 1}]
)
def test_a_file_of_no_form_says_which_there_are(tmp_path, value):
    path = _write(tmp_path / "x.json", json.dumps(value))
    with pytest.raises(ValueError, match=r"x\.json is no file of a run.*losses\.jsonl"):
        read_runs([path])


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ({"intervals": {"a": 1}}, "intervals: a: 1 where a list"),
        ({"intervals": {"a": ["x", 2]}}, "intervals: a: 0: 'x' where a number"),
        ({"reference": {"name": "x"}}, "reference: has no 'scores'"),
        ({"reference": 3.0}, "reference: 3.0 where an object"),
        ({"membership": {"loss": {"forget": [1]}}}, "loss: has no 'holdout'"),
        ({"examples": [{"set": "forget"}]}, "examples: 0: has no 'prompt'"),
        ({"layers": [{"layer": 1}]}, "layers: 0: layer: 1 where a text"),
        ({"curves": {"x": [{"forget": 1}]}}, "curves: x: 0: has no 'step'"),
        ({"cost": {"seconds": {"a": True}}}, "a: True where a number"),
        ({"not_computed": ["x"]}, "not_computed: .* where an object"),
    ],
)
def test_a_wrong_part_is_named(tmp_path, block, part):
    path = _scores(tmp_path / "x.json", **block)
    with pytest.raises(ValueError, match=rf"x\.json: .*{part}"):
        read_runs([path])
