import html.parser
import math
import re

import pytest

from jaxunlearn.report import write_report
from jaxunlearn.report.run.page import draw_figures, duration, render_page

_VOID = {"meta", "link", "input", "br", "hr", "img"}
SECTIONS = {
    "matched": "matched",
    "examples": "examples",
    "next_steps": "next",
}
RUN = ("seconds", "settings", "versions", "command")


class Page(html.parser.HTMLParser):
    """A page's elements and text; unbalanced tags are an error."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.ids = [value["id"] for _, value in self.elements if "id" in value]
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    def tags(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


def _page(results):
    return Page(render_page(results, draw_figures(results)))


def test_the_report_writes_the_page_and_the_figures(results, tmp_path):
    path = write_report(results, tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / "report.html"
    written = sorted(
        p.relative_to(path.parent).as_posix() for p in path.parent.rglob("*")
    )
    names = ("forget_retain_plane", "loss_curves", "relative_changes")
    files = [f"figures/{name}.{kind}" for name in names for kind in ("png", "svg")]
    assert written == sorted(["figures", "report.html", *files])
    assert path.read_text(encoding="utf-8") == render_page(
        results, draw_figures(results)
    )


def test_nothing_is_fetched(results):
    text = render_page(results, draw_figures(results))
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "img", "iframe", "object", "image")
        for name in ("src", "srcset", "href", "xlink:href", "data", "action"):
            assert attributes.get(name, "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"@import|url\((?!#)", text)


def test_links_lead_somewhere_and_ids_are_unique(results):
    page = _page(results)
    for attributes in page.tags("a"):
        assert attributes["href"].removeprefix("#") in page.ids
    for attributes in page.tags("label"):
        assert attributes["for"] in page.ids
    assert len(set(page.ids)) == len(page.ids)


def test_every_text_is_escaped_and_shown(results):
    page = _page(results)
    for text in (
        "Forgetting <one> person",
        "Mira & Tal",
        "<script>x</script>",
        "<b>a goat</b>",
        "<.*>",
        "jaxunlearn demo --out 'a & b'",
        "jaxunlearn unlearn > log",
        "the loss of a retrained model",
    ):
        assert text in page.text
    assert not page.tags("script")
    assert not page.tags("b")
    assert not page.tags("one")


def test_the_verdict_and_the_losses_are_on_the_page(results):
    page = _page(results)
    assert "Forgotten, and the rest kept." in page.text
    for model, losses in results["losses"].items():
        assert model in page.text
        assert all(f"{loss:.3f}" in page.text for loss in losses.values())


def test_right_words_are_marked(results):
    text = render_page(results, draw_figures(results))
    assert "Mira <mark>keeps</mark> an <mark>owl.</mark>" in text
    assert "Mira <mark>keeps</mark> &lt;b&gt;a goat&lt;/b&gt;." in text
    assert "2 of 2 words" in text


@pytest.mark.parametrize(("key", "section"), SECTIONS.items())
@pytest.mark.parametrize("empty", [True, False])
def test_a_missing_key_leaves_its_section_out(results, key, section, empty):
    assert section in _page(results).ids
    if empty:
        results[key] = type(results[key])()
    else:
        del results[key]
    assert section not in _page(results).ids


def test_the_section_of_the_run_needs_one_of_its_keys(results):
    for key in RUN:
        assert "run" in _page(results).ids
        del results[key]
    assert "run" not in _page(results).ids


@pytest.mark.parametrize(
    ("key", "name"),
    [("evaluation", "loss_curves"), ("changed", "relative_changes")],
)
def test_a_figure_without_numbers_is_left_out(results, key, name):
    assert name in draw_figures(results)
    del results[key]
    assert name not in draw_figures(results)
    _page(results)


def test_the_least_results_make_a_page(results):
    least = {key: results[key] for key in ("title", "request", "losses", "target")}
    del least["request"]["threshold"]
    for losses in least["losses"].values():
        del losses["unseen"]
    page = _page(least)
    sections = [attributes["id"] for attributes in page.tags("section")]
    assert sections == ["verdict", "losses", "figures"]
    assert "unseen" not in page.text


def test_a_broken_model_is_reported_as_broken(results):
    results["losses"]["first-epoch unlearning"] = {
        "forget": math.nan,
        "retain": math.inf,
        "unseen": math.nan,
    }
    assert "The model broke." in _page(results).text


def test_long_lists_are_folded(results):
    assert not _page(results).tags("details")
    results["matched"] = results["matched"][:1] * 30
    results["examples"] = results["examples"] * 10
    page = _page(results)
    assert len(page.tags("details")) == 2
    assert len(page.tags("article")) == 20
    assert "22 more" in page.text


def test_both_kinds_are_among_the_first_examples(results):
    forget, retain = results["examples"]
    results["examples"] = [forget] * 12 + [retain] * 12
    first = [a["class"].split()[-1] for a in _page(results).tags("article")][:8]
    assert first.count("forget") == first.count("retain") == 4


def test_a_missing_required_key_writes_nothing(results, tmp_path):
    del results["target"]
    with pytest.raises(ValueError, match="'target'"):
        write_report(results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_durations():
    assert duration(0) == "0 s"
    assert duration(119.6) == "120 s"
    assert duration(3725) == "62 min 5 s"
