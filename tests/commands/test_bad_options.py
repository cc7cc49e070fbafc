"""No option of any command takes nonsense: it is refused by name before any work.

The fast test draws some of the cases; `pytest -m slow` runs them all.
"""

import random
import typing

import pytest

from jaxunlearn import cli
from jaxunlearn.commands.arguments import option_classes
from jaxunlearn.commands.unlearn_methods import own_fields
from jaxunlearn.unlearning import METHODS

NUMBERS = {
    int: ("-1", str(2**70), "-3000000000"),
    float: ("nan", "inf", "-inf", "-0.5"),
}
"""What no number of ours may be, where MEANT does not say otherwise."""

MEANT = {
    # The value of an option that is right although it looks wrong, and why.
    # A loss may be below 0 where outcomes are dense.
    ("unlearn", "simnpo", "delta", "-0.5"),
}


def options_of(command):
    """Name and type of each option, None left out: [("epochs", int), ...]."""
    name, *rest = command
    hints = typing.get_type_hints(cli.command_of(name))
    found = {}
    for argument, hint in hints.items():
        classes = option_classes(hint)
        if rest:
            classes = [one for one in classes if one.__name__.lower() == rest[0]]
        for one in classes:
            found |= typing.get_type_hints(one)
        if not classes and argument != "return":
            found[argument] = hint
    return sorted(found.items())


def kinds_of(hint):
    """The classes that a type hint is made of."""
    if isinstance(hint, type) and not typing.get_args(hint):
        return {hint}
    return set().union(*(kinds_of(one) for one in typing.get_args(hint)))


COMMANDS = [(name,) for name in cli.COMMANDS if name != "index"]
COMMANDS += [("index", "build"), ("index", "query")]


def cases():
    """Every (command, option, value) that has to be refused."""
    for command in COMMANDS:
        for name, hint in options_of(command):
            for kind in kinds_of(hint) & set(NUMBERS):
                for value in NUMBERS[kind]:
                    if (*command, name, value) not in MEANT:
                        yield command, name, value


def own_cases():
    """Every (command with a method, the method's own option, value) likewise."""
    for method, row in METHODS.items():
        if "run" in row.needs:
            continue  # without a run, that is what is refused
        for name, annotation, _ in own_fields(row):
            for kind in kinds_of(typing.get_args(annotation)[0]) & set(NUMBERS):
                for value in NUMBERS[kind]:
                    if ("unlearn", method, name, value) not in MEANT:
                        yield ("unlearn", method), name, value


def given(command, name, tiny, tmp_path):
    """The least that a command needs, without the option that is to be tried."""
    out = tmp_path / "out"
    needed = {
        ("demo",): {"out": out},
        ("train",): {"model": tiny.model, "data": tiny.train, "out": out},
        ("unlearn",): {
            "method": "gradient_ascent",
            "model": tiny.model,
            "forget": tiny.query,
            "retain": tiny.train,
            "out": out,
        },
        ("influence",): {
            "model": tiny.model,
            "train": tiny.train,
            "query": tiny.query,
            "out": tmp_path / "scores.npz",
        },
        ("index", "build"): {"model": tiny.model, "train": tiny.train, "out": out},
        ("index", "query"): {
            "model": tiny.model,
            "train": tiny.train,
            "query": tiny.query,
            "index": tmp_path / "index",
        },
        ("evaluate",): {
            "model": tiny.model,
            "forget": tiny.query,
            "out": tmp_path / "scores.json",
        },
        ("attack",): {
            "model": tiny.model,
            "reference": tiny.model,
            "forget": tiny.query,
            "out": tmp_path / "attack.json",
        },
        ("report",): {"out": out},
        ("parity",): {"model": tiny.model},
    }[command[:1] if command[0] == "unlearn" else command]
    if command[0] == "unlearn" and len(command) > 1:
        needed["method"] = command[1]
        command = command[:1]
    words = list(command)
    if command == ("report",):
        words.append(str(tmp_path))
    for option, value in needed.items():
        if option != name:
            words += [f"--{option}", str(value)]
    return words


def refused(case, tiny, tmp_path, capsys):
    """Run one case and hold it to the law."""
    command, name, value = case
    option = f"--{name.replace('_', '-')}"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as end:
        cli.main([*given(command, name, tiny, tmp_path), f"{option}={value}"])
    printed = capsys.readouterr()
    told = printed.err + printed.out
    assert end.value.code == 2, (case, end.value.code, told)
    assert "Traceback" not in told
    assert option in told, (case, told)
    assert sorted(tmp_path.rglob("*")) == before, case


CASES = list(cases())
OWN = list(own_cases())


def test_there_are_cases_of_every_command_with_numbers():
    assert {command for command, _, _ in CASES} >= {("train",), ("unlearn",)}
    assert len(CASES) > 100


@pytest.mark.parametrize("seed", [0])
def test_nonsense_is_refused_by_name_before_any_work(seed, tiny, tmp_path, capsys):
    for case in random.Random(seed).sample(CASES, 25):
        refused(case, tiny, tmp_path, capsys)


@pytest.mark.parametrize("seed", [0])
def test_so_is_what_a_method_alone_reads(seed, tiny, tmp_path, capsys, load_once):
    assert {command[1] for command, _, _ in OWN} > {"npo", "ssd", "gradient_ascent"}
    for case in random.Random(seed).sample(OWN, 8):
        refused(case, tiny, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES + OWN, ids=lambda case: " ".join(map(str, case)))
def test_all_nonsense_is_refused(case, tiny, tmp_path, capsys):
    refused(case, tiny, tmp_path, capsys)
