import io
import xml.etree.ElementTree as ElementTree

import markupsafe
import pytest
import rich.console

from jaxunlearn.report.kit.tables import console_table, html_table, text_of

ROWS = [
    {"model": "a [bold]<b>", "loss": 0.123456, "way": "50 %", "note": "x"},
    {"model": "b", "loss": None, "way": None, "note": 3},
]


def _printed(table):
    console = rich.console.Console(file=io.StringIO(), width=100)
    console.print(table)
    return console.file.getvalue()


def test_the_console_shows_every_cell_as_it_is():
    text = _printed(console_table(ROWS, title="Losses [nats]"))
    for part in ("Losses [nats]", "a [bold]<b>", "0.1235", "–", "50 %"):
        assert part in text


def test_a_short_title_stands_in_one_line_above_narrow_columns():
    text = _printed(console_table([{"a": 1}], title="Mean loss (nats a token)"))
    assert text.splitlines()[0].strip() == "Mean loss (nats a token)"


def test_the_console_aligns_numbers_at_the_right():
    columns = console_table(ROWS).columns
    assert [column.justify for column in columns] == ["left", "right", "right", "left"]


def test_the_html_table_is_well_formed_and_holds_every_cell():
    table = ElementTree.fromstring(html_table(ROWS, caption="x < y"))
    assert table.findtext("caption") == "x < y"
    assert [cell.text for cell in table.iter("th")] == [*ROWS[0], "a [bold]<b>", "b"]
    cells = list(table.iter("td"))
    assert [cell.text for cell in cells] == ["0.1235", "50 %", "x", "–", "–", "3"]
    assert [cell.get("data-label") for cell in cells] == ["loss", "way", "note"] * 2
    classes = ["number", "number", None, "absent", "absent", None]
    assert [cell.get("class") for cell in cells] == classes


def test_markup_stays_markup():
    table = html_table([{"a": markupsafe.Markup("<i>x</i>"), "b": "<i>"}])
    assert "<i>x</i>" in table
    assert "&lt;i&gt;" in table


@pytest.mark.parametrize("table", [console_table, html_table])
def test_bad_rows_are_an_error(table):
    with pytest.raises(ValueError, match="rows is empty"):
        table([])
    with pytest.raises(ValueError, match=r"rows\[1\] has the keys \['b'\]"):
        table([{"a": 1}, {"b": 2}])


def test_numbers_of_every_size_are_short():
    for value in (1e-12, 0.5, 3.14159265, 98765.4321, 2**40, 1e30):
        assert len(text_of(value)) <= 17
    assert text_of(float("nan")) == "–"
