"""What the command line asks of a row of the table of methods."""

import re

import pytest

from jaxunlearn import cli
from jaxunlearn.commands.unlearn_rows import check_row, table_text
from jaxunlearn.unlearning import METHODS


def not_annotated(task, *, beta=0.1): ...


def without_default(task, *, beta: float): ...


def named_as_of_the_recipe(task, *, seed: int = 0): ...


def named_as_of_all(task, *, retain_size: int = 0): ...


def with_a_list(task, *, powers: tuple[int, ...] = []): ...  # noqa: B006


def with_an_unknown_type(task, *, beta: "Nowhere" = 1): ...  # noqa: F821


def sound(task, *, gamma: float = 0.5):
    """Return nothing."""


WRONG = {
    "not_annotated": (not_annotated, {}, "beta has no annotation: give"),
    "without_default": (without_default, {}, "beta has no default: give"),
    "recipe": (named_as_of_the_recipe, {}, "seed is called as .*: rename"),
    "shared": (named_as_of_all, {}, "retain.size is called as .*: rename"),
    "list": (with_a_list, {}, r"powers has the default \[\]: give"),
    "unknown_type": (with_an_unknown_type, {}, "'Nowhere' is not defined"),
    "form": (sound, {"form": "objectiv"}, "form='objectiv': one of objective"),
    "need": (sound, {"needs": frozenset({"retian"})}, r"needs=\['retian'\]: known"),
}
"""Name -> function, other fields, and what is told of it."""


def row_of(function, **fields):
    return METHODS["npo"]._replace(function=function, **fields)


@pytest.fixture
def outside(monkeypatch):
    """Rows from outside beside ours: one that is right, and the wrong ones."""
    monkeypatch.setitem(METHODS, "sound", row_of(sound))
    for name, (function, fields, _) in WRONG.items():
        monkeypatch.setitem(METHODS, name, row_of(function, **fields))


def run(capsys, *given):
    with pytest.raises(SystemExit) as end:
        cli.main(list(given))
    printed = capsys.readouterr()
    return end.value.code, printed.out + printed.err


def test_our_rows_are_sound():
    for name, row in METHODS.items():
        check_row(name, row)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_row_is_named_where_it_is_asked_for(name, outside, capsys):
    message = WRONG[name][2]
    with pytest.raises(ValueError, match=message):
        check_row(name, METHODS[name])
    for given in ((name,), ("--method", name)):
        status, told = run(capsys, "unlearn", *given, "--help")
        assert status == 2
        assert re.search(message, told)
        assert f"METHODS['{name}']" in told


def test_wrong_rows_are_nothing_to_other_methods(outside, capsys):
    for name, option in (("npo", "--beta"), ("sound", "--gamma")):
        status, told = run(capsys, "unlearn", name, "--help")
        assert (status, option in told) == (0, True)
    status, told = run(capsys, "unlearn", "grad_diff", "--beta", "1")
    assert status == 2
    assert "use --method npo or simnpo\n" in told


def test_the_list_says_which_rows_are_wrong(outside, capsys):
    status, told = run(capsys, "unlearn", "--list")
    assert status == 0
    lines = told.splitlines()
    for name in WRONG:
        assert lines[lines.index(name) + 1].startswith(f"  wrong: METHODS['{name}']: ")
    assert told.count("wrong: ") == len(WRONG)


def test_what_is_too_long_for_a_line_goes_on_further_in():
    lines = table_text(60).splitlines()
    assert max(map(len, lines)) <= 60
    names = [line for line in lines if not line.startswith(" ")]
    assert names == list(METHODS)
    told = [line for line in lines if line.startswith("  ") and line[2] != " "]
    assert len(told) == 3 * len(METHODS)
