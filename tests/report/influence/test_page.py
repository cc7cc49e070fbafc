import html.parser
import re

import pytest

from jaxunlearn.report import Influential, QueryInfluence, write_influence_page
from jaxunlearn.report.influence.page import (
    coloured_tokens,
    render_influence_page,
    strongest_tokens,
)

_VOID = {"meta", "link", "br"}
NASTY = '<script>alert("x")</script> & \u2028 {{ 7 * 7 }}'
TOKENS = (
    ("<b>", 4.0),
    ("a\n", -2.0),
    ("", 1.0),
    (" \t", 0.0),
    ("\x00x", -0.001),
)
FACTS = {"method": "ekfac <&>", "coverage": "all", "damping": "0.1 to 2, by layer"}


@pytest.fixture
def queries():
    marked = Influential(3, 2.999, "<b>a\n", TOKENS)
    plain = Influential(5, 0.5, NASTY)
    opponent = Influential(7, -1.25, "x", (("x", -1.25),))
    return [
        QueryInfluence(NASTY, [marked, plain], [opponent]),
        QueryInfluence("second", [], []),
    ]


class Page(html.parser.HTMLParser):
    """A page's elements and texts; unbalanced tags are an error."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join("".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)


def test_nothing_is_fetched_or_run_and_every_text_is_text(queries):
    text = render_influence_page(queries, facts=FACTS, notes=["<i>slow</i>"])
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "img", "iframe", "object", "i")
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "srcset", "data", "action")
            assert name != "href" or value.startswith("#")
    assert not re.search(r"@import|url\(|https?:", text)
    assert page.text.count("alert") == 2  # of the query and of a plain example
    assert "{{ 7 * 7 }}" in page.text
    for shown in ("<i>slow</i>", "ekfac <&>", "0.1 to 2, by layer", "+2.999", "−1.25"):
        assert shown in page.text
    places = {a["id"] for _, a in page.elements if "id" in a}
    links = [a["href"][1:] for tag, a in page.elements if tag == "a"]
    assert links == ["query-0", "query-1"]
    assert set(links) <= places


def test_one_span_a_token_with_sign_number_and_strength(queries):
    page = Page(str(coloured_tokens(queries[0].proponents[0])))
    spans = [attributes for tag, attributes in page.elements if tag == "span"]
    assert len(spans) == len(TOKENS)
    classes = [span["class"].split()[1:] for span in spans]
    assert classes == [["p", "u3"], ["n", "u3"], ["p", "u2"], ["z", "u0"], ["z", "u0"]]
    titles = [span["title"] for span in spans]
    assert titles == ["+4", "−2", "+1", "0", "−0.001"]
    values = [float(title.replace("−", "-")) for title in titles]
    assert sum(values) == pytest.approx(queries[0].proponents[0].score)
    strengths = [float(span["style"].removeprefix("--s:")) for span in spans]
    assert strengths == [1.0, 0.5, 0.25, 0.0, 0.0]
    assert "".join(page.texts) == "<b>a↵\n· ⇥\t␀x"


def test_tokens_without_any_share_are_plain():
    page = Page(
        str(coloured_tokens(Influential(0, 0.0, "ab", (("a", 0.0), ("b", 0.0)))))
    )
    assert [a["class"] for _, a in page.elements] == ["t z u0", "t z u0"]


def test_the_strongest_are_written_out(queries):
    named = strongest_tokens(queries[0].proponents[0])
    assert named[:3] == [("<b>", "+4"), ("a↵", "−2"), ("·", "+1")]
    assert strongest_tokens(Influential(0, 1.0, " ", ((" ", 1.0),))) == [("␣", "+1")]


def test_the_legend_goes_with_what_is_shown(queries):
    page = Page(render_influence_page(queries, facts=FACTS))
    assert "A positive score is a proponent" in page.text
    assert "underlined by a wave" in page.text
    assert "1 more" in page.text  # the example without shares
    plain = [queries[0]._replace(proponents=[queries[0].proponents[1]], opponents=[])]
    page = Page(render_influence_page(plain, facts=FACTS))
    assert "not coloured" in page.text
    assert "by a wave" not in page.text
    assert "more" not in page.text


def test_the_file_is_written_whole(queries, tmp_path):
    path = write_influence_page(tmp_path / "new" / "p.html", queries, facts=FACTS)
    text = path.read_text(encoding="utf-8")
    assert text == render_influence_page(queries, facts=FACTS)
    assert [p.name for p in path.parent.iterdir()] == ["p.html"]
    with pytest.raises(ValueError, match="queries is empty"):
        write_influence_page(tmp_path / "q.html", [], facts=FACTS)
