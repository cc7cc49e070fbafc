"""Influence scores as one HTML file, the training tokens coloured by their share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from jaxunlearn.files import write_text
from jaxunlearn.report.kit.tables import text_of
from jaxunlearn.report.kit.tables import visible as with_signs
from jaxunlearn.report.kit.templates import environment

FOLDER = Path(__file__).parent
LEVELS = ((0.5, 3), (0.2, 2), (0.02, 1))  # least share of the strongest, thickness
NAMED = 5  # strongest tokens that are also written out


class Influential(NamedTuple):
    """A training example of a query.

    Attributes:
      index: Its position in the training data.
      score: Its influence; positive is a proponent.
      text: All of it.
      tokens: (text, share of the score) of each token in order; None without shares.
    """

    index: int
    score: float
    text: str
    tokens: tuple[tuple[str, float], ...] | None = None


class QueryInfluence(NamedTuple):
    """A query with the examples to be shown, the strongest first.

    Attributes:
      text: The query.
      proponents: Examples of positive score.
      opponents: Examples of negative score.
    """

    text: str
    proponents: Sequence[Influential]
    opponents: Sequence[Influential]


def write_influence_page(
    path: Path | str,
    queries: Sequence[QueryInfluence],
    *,
    facts: Mapping[str, str],
    notes: Sequence[str] = (),
) -> Path:
    """Write the page: one file, style inside, nothing fetched, every text escaped.

    Args:
      path: The file, replaced if it exists.
      queries: One or more queries.
      facts: What the scores are of: name -> text, such as method and coverage.
      notes: What the solvers said.

    Returns:
      The path.

    Raises:
      ValueError: There is no query.
    """
    path = Path(path)
    write_text(path, render_influence_page(queries, facts=facts, notes=notes))
    return path


def render_influence_page(
    queries: Sequence[QueryInfluence],
    *,
    facts: Mapping[str, str],
    notes: Sequence[str] = (),
) -> str:
    """Render the page that ``write_influence_page`` writes."""
    if not queries:
        raise ValueError("queries is empty: the page needs one query or more")
    templates = environment(FOLDER)
    templates.filters.update(
        tokens=coloured_tokens,
        strongest=strongest_tokens,
        signed=signed,
        visible=visible,
    )
    examples = [e for q in queries for e in (*q.proponents, *q.opponents)]
    return templates.get_template("page.html.jinja").render(
        queries=queries,
        facts=facts,
        notes=notes,
        coloured=any(example.tokens is not None for example in examples),
    )


def coloured_tokens(example: Influential) -> Markup:
    """Return an example's text, one ``<span>`` a token.

    Blue and a solid underline for a positive share, red and a wavy one for a negative;
    strength and thickness go by the share of the example's strongest token.

    >>> print(coloured_tokens(Influential(0, 1.0, "ab", (("a", 2.0), ("b", -1.0)))))
    <span class="t p u3" style="--s:1.00" title="+2">a</span><span class="t n u3"
    style="--s:0.50" title="−1">b</span>"""  # noqa: E501
    strongest = max((abs(value) for _, value in example.tokens or ()), default=0.0)
    span = Markup('<span class="t {} u{}" style="--s:{:.2f}" title="{}">{}</span>')
    parts = []
    for text, value in example.tokens or ():
        share = abs(value) / strongest if strongest > 0 else 0.0
        level = next((thick for least, thick in LEVELS if share >= least), 0)
        kind = "z" if level == 0 else "p" if value > 0 else "n"
        parts.append(span.format(kind, level, share, signed(value), visible(text)))
    return Markup("").join(parts)


def strongest_tokens(example: Influential) -> list[tuple[str, str]]:
    """Return the tokens with the largest shares, for readers without color."""
    order = sorted(example.tokens or (), key=lambda token: -abs(token[1]))
    return [(visible(text).strip() or "␣", signed(v)) for text, v in order[:NAMED]]


def signed(value: float) -> str:
    """Return a number with its sign.

    >>> signed(0.25), signed(-1234.5), signed(0.0)
    ('+0.25', '−1,234', '0')
    """
    if value == 0:
        return "0"
    return ("+" if value > 0 else "−") + text_of(abs(float(value)))


def visible(text: str) -> str:
    """Return a text whose line ends and control characters can be seen.

    A token without text of its own, the first bytes of a character, is a dot.

    >>> visible("a\\n"), visible("")
    ('a↵\\n', '·')
    """
    shown = with_signs(text)
    return shown.replace("\n", "↵\n").replace("\t", "⇥\t") or "·"
