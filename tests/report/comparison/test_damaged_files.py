"""Files of runs with wrong parts: read, or refused by name, never a traceback."""

import copy
import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxunlearn.report import csv_text, latex_table, read_runs, sentence_of
from jaxunlearn.report.comparison.export import export_rows
from jaxunlearn.report.comparison.page import draw_comparison, render_comparison
from jaxunlearn.sealed import write_sealed

POINT = {"x": 0, "value": 0.5, "low": 0.4, "high": 0.6}
FILES = {
    "scores.json": {
        "forget_loss": 1.5,
        "retain_loss": 0.5,
        "about": {"format": "jaxunlearn scores", "name": "n", "versions": {"jax": "1"}},
        "intervals": {"forget_loss": [1.0, 2.0]},
        "counts": {"forget_loss": {"used": 3, "left_out": 1}},
        "notes": {"forget_loss": "a note"},
        "reference": {"name": "r", "count": 1, "scores": {"forget_loss": 2.0}},
        "original": {"scores": {"forget_loss": 0.1}},
        "membership": {"loss": {"forget": [1.0, 2.0], "holdout": [2.0], "auc": 0.7}},
        "examples": [
            {
                "set": "forget",
                "prompt": "q",
                "truth": "a b",
                "answers": {"after": "a"},
                "tokens": {"after": [["a", 0.1], [" b", None]]},
            }
        ],
        "layers": [{"layer": "h/0", "parameter_distance": 0.1, "cka_before": 0.9}],
        "curves": {"losses": [{"step": 0, "forget": 1.0}, {"step": 1, "forget": 2.0}]},
        "retraining": {"distance": {"forget_loss": {"z": 1.0, "p_value": 0.5}}},
        "cost": {"seconds": {"all": 1.0}, "peak_bytes": 5},
        "not_computed": {"uds": "needs"},
    },
    "attack.json": {
        "about": {"format": "jaxunlearn attack", "name": "n"},
        "attacks": [
            {
                "name": "relearning",
                "x": "steps",
                "metric": "auc",
                "curves": {"model": [POINT, POINT], "reference": [POINT]},
                "excess": {"value": 0.1, "low": 0.0, "high": 0.2},
                "recovers": True,
                "note": "n",
            }
        ],
        "not_run": {"context": "needs"},
    },
    "unlearning.json": {
        "trials": [
            {"scale": 1.0, "forget": 1.0, "retain": 0.5},
            {"scale": 2.0, "forget": 2.0, "retain": 0.6},
        ],
        "losses": {
            "before": {"forget": 1.0, "retain": 0.5},
            "after": {"forget": 2.0, "retain": 0.5},
        },
        "versions": {"jax": "1"},
    },
}
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([10**400, -(10**400), 1e308, -1.0, 0]),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=4),
        st.sampled_from(["\x1b[31m", "$x$", "</script>", "_"]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "value", "step", "x"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)


def places_of(value, path=()):
    """Every place in a JSON value, as keys and positions from the top."""
    yield path
    found = dict(enumerate(value)) if isinstance(value, list) else value
    for key, inner in found.items() if isinstance(found, dict) else ():
        yield from places_of(inner, (*path, key))


def damaged_run(folder, data):
    """Write a run, one of whose files has other values at some places."""
    name = data.draw(st.sampled_from(sorted(FILES)))
    value = copy.deepcopy(FILES[name])
    for _ in range(data.draw(st.integers(1, 2))):
        *way, last = data.draw(st.sampled_from(list(places_of(value))[1:]))
        inner = value
        for key in way:
            inner = inner[key]
        inner[last] = data.draw(VALUES)
    (folder / name).write_text(json.dumps(value))
    return folder / name


def told_of(path, draw):
    """Everything the report makes of a run; None where it is refused by name."""
    try:
        runs = read_runs([path])
    except ValueError as error:
        return None if path.name in str(error) else error
    tables = [rows for rows in export_rows(runs).values() if rows]
    texts = [table(rows) for table in (csv_text, latex_table) for rows in tables]
    page = render_comparison(runs, draw_comparison(runs) if draw else [])
    return [*texts, page, sentence_of(runs[0])]


BOUNDED = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@settings(max_examples=120, **BOUNDED)
@given(st.data())
def test_whatever_stands_in_a_file_it_is_shown_or_refused(tmp_path, data):
    told = told_of(damaged_run(tmp_path, data), draw=False)
    assert told is None or isinstance(told, list), told
    for text in told or ():
        assert "\x1b" not in text


@pytest.mark.slow
@settings(max_examples=60, **BOUNDED)
@given(st.data())
def test_whatever_stands_in_a_file_its_figures_are_drawn(tmp_path, data):
    told = told_of(damaged_run(tmp_path, data), draw=True)
    assert told is None or isinstance(told, list), told


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"forget_loss": NaN}', "NaN is no JSON number"),
        ('{"forget_loss": 1e999}', "larger than any float"),
    ],
)
def test_what_is_no_json_is_refused_by_file(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=reason) as error:
        read_runs([tmp_path])
    assert name in str(error.value)


@pytest.mark.parametrize("name", ["scores.json", "attack.json"])
def test_every_bit_of_a_sealed_file_counts(tmp_path, name):
    path = tmp_path / name
    write_sealed(path, FILES[name])
    assert read_runs([path])[0].name == "n"
    whole = path.read_bytes()
    for bit in range(0, 8 * whole.rindex(b'"sha256"'), 7):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=name):
            read_runs([path])


def test_counts_and_notes_stand_on_the_page_and_in_the_tables(tmp_path):
    (tmp_path / "scores.json").write_text(json.dumps(FILES["scores.json"]))
    runs = read_runs([tmp_path])
    page = render_comparison(runs, [])
    assert "3 of 4 questions" in page
    assert "a note" in page
    row = next(r for r in export_rows(runs)["scores"] if r["score"] == "forget_loss")
    assert (row["used"], row["left_out"]) == (3, 1)


def test_no_table_holds_what_is_no_number():
    rows = [{"run": "a\x1b", "x": math.nan, "y": math.inf}]
    assert csv_text(rows) == "run,x,y\na␛,,\n"
    assert "a␛ & -- & $\\infty$" in latex_table(rows)
