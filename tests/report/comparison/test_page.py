import dataclasses
import html.parser
import re

import pytest

from jaxunlearn.report import ComparedRun, write_comparison
from jaxunlearn.report.comparison.examples import (
    MOST,
    coloured_by_loss,
    compared_examples,
)
from jaxunlearn.report.comparison.page import draw_comparison, render_comparison
from jaxunlearn.report.comparison.tables import cost_rows, with_unit

_VOID = {"meta", "link", "input", "br", "hr", "img"}
SECTIONS = (
    "summary plane curves track layers examples membership attacks cost missing "
    "provenance"
).split()
COMMANDS = {
    "summary": "jaxunlearn evaluate",
    "plane": "jaxunlearn evaluate",
    "curves": "jaxunlearn train",
    "track": "jaxunlearn train --track",
    "layers": "jaxunlearn evaluate",
    "examples": "jaxunlearn evaluate",
    "membership": "jaxunlearn evaluate",
    "attacks": "jaxunlearn attack",
    "cost": "jaxunlearn evaluate",
}


class Page(html.parser.HTMLParser):
    """A page's elements and the text of each section; unbalanced tags are an error."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.sections = [], [], {None: []}
        self.section = None
        self.feed(text)
        self.close()
        assert self.open == []
        self.ids = [value["id"] for _, value in self.elements if "id" in value]
        self.texts = {
            name: re.sub(r"\s+", " ", " ".join(parts))
            for name, parts in self.sections.items()
        }
        self.text = " ".join(self.texts.values())

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = attributes["id"]
            self.sections[self.section] = []

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "section":
            self.section = None

    def handle_data(self, data):
        if "style" not in self.open:
            self.sections[self.section].append(data)

    def tags(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


@pytest.fixture(scope="module")
def page(comparison_page):
    return Page(comparison_page.read_text(encoding="utf-8"))


def test_page_figures_and_tables_are_written_and_nothing_else(comparison_page):
    folder = comparison_page.parent
    written = {p.relative_to(folder).as_posix() for p in folder.rglob("*.*")}
    stems = ["plane", "layers"]
    stems += [f"curves_{n}" for n in ("calibration", "evaluation_in_training")]
    stems += ["curves_losses", "curves_training"]
    stems += [f"membership_{n}" for n in ("loss", "zlib", "min_k")]
    stems += ["attacks_relearning", "attacks_quantisation"]
    stems += ["track_gradient_dot", "track_gradient_norms"]
    tables = "summary scores attacks verdicts membership layers curves cost".split()
    tables += ["track", "track_norms"]
    expected = {f"figures/{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    expected |= {f"tables/{name}.{kind}" for name in tables for kind in ("csv", "tex")}
    assert written == expected | {"report.html"}


def test_the_same_runs_give_the_same_page(compared_runs, tmp_path):
    runs = [dataclasses.replace(run, blocks={}, attacks=()) for run in compared_runs]
    text = render_comparison(runs[:1], draw_comparison(runs[:1]))
    path = write_comparison(runs[:1], tmp_path)
    assert path.read_text(encoding="utf-8") == text


def test_nothing_is_fetched(comparison_page, page):
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "img", "iframe", "object", "image", "base")
        for name in ("src", "srcset", "href", "xlink:href", "data", "action"):
            assert attributes.get(name, "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
        assert not re.search(r"https?:|url\((?!#)", attributes.get("style", ""))
    text = comparison_page.read_text(encoding="utf-8")
    assert not re.search(r"@import|url\((?!#)", text)


def test_links_lead_somewhere_and_ids_are_unique(page):
    for attributes in page.tags("a"):
        assert attributes["href"].removeprefix("#") in page.ids
    for attributes in page.tags("label"):
        assert attributes["for"] in page.ids
    for tag, attributes in page.elements:
        if tag == "use":
            assert attributes["xlink:href"].removeprefix("#") in page.ids
    assert len(set(page.ids)) == len(page.ids)


def test_every_section_is_there_with_its_numbers(page):
    assert [attributes["id"] for attributes in page.tags("section")] == SECTIONS
    assert not any("missing" in a.get("class", "") for a in page.tags("p"))
    for section, words in {
        "summary": "2.98 best [2.8, 3.13] −0.07 0.66 hw",
        "curves": "Calibration",
        "membership": "first-epoch: AUC 0.",
        "track": "by hand: the same text",
        "attacks": "first-epoch: It is not shown that more comes back",
        "cost": "45 min 20 s",
        "missing": "needs --canaries FILE, which was not given",
        "provenance": "jaxunlearn evaluate --model 'runs/first-epoch/model'",
    }.items():
        assert words in page.texts[section]
    assert "soft prompts needs --prompts" in page.texts["missing"]


def test_every_text_is_escaped_and_shown(page):
    for text in ("NPO <β=0.1> $x_1$", "<b>born</b>", "Nobody has <i>said</i> so."):
        assert text in page.text
    assert not page.tags("script")
    assert "β" not in "".join(tag for tag, _ in page.elements)
    bold = [tag for tag, _ in page.elements if tag == "b"]
    assert len(bold) < 30  # those of the page's own, none of the examples'


@pytest.mark.parametrize("field", ["name", "truth", "reason", "command", "version"])
def test_no_text_of_a_file_becomes_markup(compared_runs, field):
    evil = "</style><script>alert(1)</script>\"'&<b>"
    run = compared_runs[0]
    if field == "name":
        changed = dataclasses.replace(run, name=evil)
    elif field == "truth":
        (example, *_) = run.blocks["examples"]
        tokens = {"after": [[evil, 1.0]]}
        example = {**example, "prompt": evil, "truth": evil, "tokens": tokens}
        example["answers"] = {"after": evil, evil: evil}
        blocks = {**run.blocks, "examples": [example]}
        changed = dataclasses.replace(run, blocks=blocks)
    elif field == "reason":
        changed = dataclasses.replace(run, not_run={evil: evil})
    elif field == "command":
        about = {"scores": {"command": evil, "model": evil}}
        changed = dataclasses.replace(run, about=about)
    else:
        about = {"scores": {"versions": {evil: evil}}}
        changed = dataclasses.replace(run, about=about)
    text = render_comparison([changed], ())
    assert "<script" not in text
    assert text.count("</style>") == 1
    assert evil in Page(text).text


def test_a_run_without_anything_says_what_would_make_each_section():
    text = render_comparison([ComparedRun("bare")], draw_comparison([ComparedRun("x")]))
    page = Page(text)
    assert [attributes["id"] for attributes in page.tags("section")] == SECTIONS
    for section, command in COMMANDS.items():
        assert command in page.texts[section]
    assert not page.tags("figure")


@pytest.mark.parametrize("block", ["examples", "membership", "layers", "cost"])
def test_a_missing_block_leaves_one_line(compared_runs, block):
    blocks = {**compared_runs[0].blocks, block: None}
    if block != "membership":
        del blocks["membership"]  # whose figures take long to draw
    run = ComparedRun("x", compared_runs[0].scores, blocks)
    texts = Page(render_comparison([run], draw_comparison([run]))).texts
    assert COMMANDS[block] in texts[block]
    assert len(texts[block]) < 300


def test_runs_must_be_there_and_have_different_names(compared_runs, tmp_path):
    for use in (draw_comparison, lambda runs: write_comparison(runs, tmp_path / "out")):
        with pytest.raises(ValueError, match="runs is empty"):
            use([])
    with pytest.raises(ValueError, match="more than one is called first-epoch"):
        write_comparison([compared_runs[0]] * 2, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_differ_only_in_signs_have_figures_of_their_own(compared_runs):
    run = compared_runs[0]
    membership = run.block("membership")["loss"]
    names = ("min-k", "min k", "µ", "λ")
    blocks = {"membership": dict.fromkeys(names, membership)}
    drawn = draw_comparison([dataclasses.replace(run, blocks=blocks)])
    stems = [one.stem for one in drawn if one.kind == "membership"]
    assert len(set(stems)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_]+", stem) for stem in stems)


def test_examples_of_all_runs_stand_together(compared_runs):
    examples = compared_examples(compared_runs)
    assert len(examples) == 12
    assert [example.kind for example in examples[:4]] == ["forget", "retain"] * 2
    told = examples[0].told
    assert [one.model for one in told] == [
        "original",
        "first-epoch",
        "NPO <β=0.1> $x_1$",
        "gradient ascent, whole model",
        "retrained",
    ]
    assert [one.run for one in told] == [None, 0, 1, 2, None]


def test_answers_of_different_retrained_models_all_stand(compared_runs):
    first, second = (
        dataclasses.replace(
            run,
            blocks={
                "examples": [
                    {
                        "set": "forget",
                        "prompt": "p",
                        "truth": "t",
                        "answers": {"retrained": answer, "after": "a"},
                    }
                ]
            },
        )
        for run, answer in zip(compared_runs, "xy", strict=False)
    )
    (example,) = compared_examples([first, second])
    answers = [(one.model, str(one.answer.html)) for one in example.told]
    assert answers[2:] == [("retrained", "x"), ("retrained", "y")]


def test_tokens_give_their_text_and_loss_back():
    tokens = [["Mi", 0.0], ["ra <", 0.7], ["\n", 2.31], ["x", 9.0], ["", None]]
    page = Page(str(coloured_by_loss(tokens)))
    spans = page.tags("span")
    losses = [span["data-loss"] for span in spans]
    assert losses == ["0.00", "0.70", "2.31", "9.00", "–"]
    # Every token can be reached without a pointer, and more than its colour differs.
    assert all(span["tabindex"] == "0" for span in spans)
    levels = [span["class"].split()[1] for span in spans]
    assert levels == ["u3", "u2", "u1", "u0", "u0"]
    shades = [float(span["style"].split(":")[1]) for span in spans]
    assert shades == sorted(shades, reverse=True)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -0.1])
def test_odd_token_losses_can_be_shown(loss):
    assert len(Page(str(coloured_by_loss([["a", loss]]))).tags("span")) == 1


def test_many_examples_are_folded_and_the_rest_left_in_the_files(compared_runs):
    run = compared_runs[0]
    (example, *_) = run.blocks["examples"]
    many = [{**example, "prompt": f"question {i}"} for i in range(MOST + 7)]
    blocks = {**run.blocks, "examples": many}
    text = render_comparison([dataclasses.replace(run, blocks=blocks)], ())
    page = Page(text)
    assert len(page.tags("article")) == MOST
    assert "7 more examples are in the scores files" in page.texts["examples"]
    assert f"{MOST - 4} more examples" in page.texts["examples"]


def test_cost_is_for_readers(compared_runs):
    (first, *_) = cost_rows(compared_runs)
    assert list(first) == [
        "run",
        "unlearning",
        "retraining",
        "peak memory",
        "operations",
    ]
    assert first["peak memory"] == "3.4 GB"
    assert with_unit(999.7, "B") == "1 kB"
    assert with_unit(1e30, "B") == "1e+12 EB"
