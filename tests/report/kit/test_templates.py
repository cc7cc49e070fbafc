import pytest

from jaxunlearn.report.influence.page import (
    Influential,
    QueryInfluence,
    render_influence_page,
)
from jaxunlearn.report.kit.tables import console_table, html_table, visible
from jaxunlearn.report.run.settings import settings_tables

STEERING = ["\x1b", "\x00", "\x07", "\x7f", "\x9b", "\u202e", "\u2066", "\ud800"]


@pytest.mark.parametrize("sign", STEERING)
def test_what_commands_a_terminal_stays_in_no_page_and_no_table(sign):
    from rich.console import Console

    text = f"a{sign}[31mb"
    example = Influential(0, 1.0, text, ((text, 1.0),))
    plain = Influential(1, -1.0, text)
    page = render_influence_page(
        [QueryInfluence(text, [example], [plain])],
        facts={"method": text, text: text},
        notes=[text],
    )
    console = Console(file=None, width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(console_table([{text: text}], title=text))
    for shown in (page, capture.get(), html_table([{text: text}]), visible(text)):
        assert sign not in shown
        assert "[31m" in shown


def test_lines_and_tabulators_and_every_script_stay():
    for text in ("a\nb\tc", "日本 हिन्दी e\u0301 \u200f", ""):
        assert visible(text) == text


def test_settings_are_tables_of_texts():
    found = settings_tables(
        {
            "seed": 0,
            "model": {"n_embd": 128, "dropout": 0.1, "name": ""},
            "recipe": {"batch_size": 8, "betas": (0.9, 0.95), "decay": None},
            "recording": {"layers": "^wte/", "inner": {"all_steps": True}},
        }
    )
    assert found == {
        "Settings": {"seed": "0"},
        "Settings: model": {"n embd": "128", "dropout": "0.1", "name": "–"},
        "Settings: recipe": {"batch size": "8", "betas": "0.9, 0.95", "decay": "–"},
        "Settings: recording": {"layers": "^wte/", "inner, all steps": "yes"},
    }
