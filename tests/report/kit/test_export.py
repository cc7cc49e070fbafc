import csv
import io
import math
import re

import pytest

from jaxunlearn.report import csv_text, latex_table, write_tables
from jaxunlearn.report.comparison.export import export_rows
from jaxunlearn.report.kit.export import latex_escaped

ROWS = [
    {"run": 'a "b", c\nd', "loss": 0.1 + 0.2, "count": 12345, "good": True, "x": None},
    {"run": "50 % & {x_1}$", "loss": 1e-300, "count": -1, "good": False, "x": None},
]


def test_csv_gives_texts_and_numbers_back():
    read = list(csv.DictReader(io.StringIO(csv_text(ROWS))))
    assert len(read) == 2
    for before, after in zip(ROWS, read, strict=True):
        assert list(after) == list(before)
        assert after["run"] == before["run"]
        assert float(after["loss"]) == before["loss"]
        assert int(after["count"]) == before["count"]
        assert after["good"] == str(before["good"])
        assert after["x"] == ""


def test_latex_has_a_cell_for_every_value():
    text = latex_table(ROWS)
    spec = re.search(r"\\begin{tabular}{(\w+)}", text)[1]
    assert spec == "lrrll"
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(body) == 1 + len(ROWS)
    for line in body:
        assert len(re.findall(r"(?<!\\)&", line)) == len(spec) - 1


def test_latex_escapes_all_that_means_something():
    special = "\\{}$&%#_~^"
    escaped = latex_escaped(special)
    # What is left after the known commands has no special character of its own.
    known = r"\\textbackslash{}|\\text\w+{}|\\[{}$&%#_]"
    assert re.sub(known, "", escaped) == ""
    assert len(re.findall(known, escaped)) == len(special)


def test_a_row_that_begins_with_a_bracket_is_no_option():
    assert "\n{}[a]" in latex_table([{"run": "[a]", "x": 1.0}])


def test_a_caption_makes_a_float():
    text = latex_table(ROWS, caption="50 % of it")
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert r"\caption{50 \% of it}" in text


@pytest.mark.parametrize("write", [csv_text, latex_table])
def test_rows_have_to_be_there_and_alike(write):
    with pytest.raises(ValueError, match="rows is empty"):
        write([])
    with pytest.raises(ValueError, match=r"rows\[1\] has the keys"):
        write([{"a": 1}, {"b": 1}])


def test_tables_without_rows_are_left_out_and_files_are_whole(tmp_path):
    paths = write_tables(tmp_path / "t", {"one": ROWS, "none": []})
    assert [path.name for path in paths] == ["one.csv", "one.tex"]
    assert sorted(p.name for p in (tmp_path / "t").iterdir()) == ["one.csv", "one.tex"]
    with pytest.raises(ValueError, match="rows"):
        write_tables(tmp_path / "u", {"one": ROWS, "two": [{"a": 1}, {"b": 1}]})
    assert not (tmp_path / "u").exists()


def test_a_table_too_long_for_paper_is_csv_alone(tmp_path):
    rows = [{"step": i} for i in range(201)]
    paths = write_tables(tmp_path, {"long": rows, "short": rows[:200]})
    assert [path.name for path in paths] == ["long.csv", "short.csv", "short.tex"]


def test_exported_scores_are_those_of_the_runs(compared_runs):
    tables = export_rows(compared_runs)
    assert all(tables.values())
    for row in csv.DictReader(io.StringIO(csv_text(tables["scores"]))):
        run = next(run for run in compared_runs if run.name == row["run"])
        assert float(row["value"]) == run.scores[row["score"]]
        if row["reference"]:
            away = float(row["value"]) - float(row["reference"])
            assert math.isclose(float(row["difference"]), away)
    count = sum(v is not None for run in compared_runs for v in run.scores.values())
    assert len(tables["scores"]) == count


def test_every_point_of_curves_and_attacks_is_exported(compared_runs):
    tables = export_rows(compared_runs)
    points = sum(
        len(points)
        for run in compared_runs
        for attack in run.attacks
        for points in attack["curves"].values()
    )
    assert len(tables["attacks"]) == points
    losses = sum(
        len(row) - 1
        for run in compared_runs
        for curve in run.curves.values()
        for row in curve.rows
    )
    assert len(tables["curves"]) == losses


def test_what_no_float_can_hold_is_no_number_in_csv():
    rows = [{"a": 10**400, "b": float("nan"), "c": 1}]
    assert csv_text(rows).splitlines() == ["a,b,c", ",,1"]
