"""What ``influence`` and ``index query`` show: rankings with texts, and tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxunlearn.commands.console import console, say, working
from jaxunlearn.commands.inputs import Inputs
from jaxunlearn.data import record_text
from jaxunlearn.influence import InfluenceScores
from jaxunlearn.influence.ranking import DIVIDED, extremes, token_shares
from jaxunlearn.report import QueryInfluence, console_table
from jaxunlearn.report.influence.facts import coverage_text
from jaxunlearn.report.influence.queries import (
    query_influences,
    strongest_examples,
    with_token_shares,
)

SHOWN_QUERIES = 10
"""Queries beyond these are in the scores file alone."""

SHOWN_CHARACTERS = 100


def ranked_queries(
    found: InfluenceScores, inputs: Inputs, top: int, aggregate: str | None
) -> list[QueryInfluence]:
    """Return the first queries with their strongest examples.

    Raises:
      ValueError: A score is not finite.
    """
    texts = [record_text(record) for record in inputs.query_records[:SHOWN_QUERIES]]
    if found.method == "self_influence":
        texts = ["(each training example on itself)"]
    elif aggregate is not None:
        count = len(inputs.query_records)
        texts = [f"(the {aggregate} of {count} queries)\n\n" + "\n\n".join(texts[:3])]
    ranked = extremes(found, k=top, queries=len(texts))
    return query_influences(texts, ranked, inputs.train_records)


def with_tokens(
    queries: Sequence[QueryInfluence], found: InfluenceScores, inputs: Inputs, most: int
) -> list[QueryInfluence]:
    """Return the queries with the tokens of their ``most`` strongest examples."""
    chosen = strongest_examples(queries, most)
    if not chosen:
        return list(queries)
    with working("Contributions of single tokens"):
        shares = token_shares(
            *(found, inputs.model.per_example_loss, inputs.params, inputs.train),
            chosen,
            queries=len(queries),
        )
    return with_token_shares(
        *(queries, shares, inputs.train.data, inputs.tokenizer),
        most=most,
        divided=found.method in DIVIDED,
    )


def show_queries(
    queries: Sequence[QueryInfluence], count: int, coverage: Mapping[str, Any]
) -> None:
    """Print which parameters the scores see, and then a table for each query."""
    say(f"Coverage: {coverage_text(coverage)}")
    for position, query in enumerate(queries):
        rows = [
            {
                "": kind,
                "score": f"{example.score:+.4g}",
                "record": example.index,
                "text": one_line(example.text),
            }
            for kind, examples in (
                ("proponent", query.proponents),
                ("opponent", query.opponents),
            )
            for example in examples
        ]
        title = f"Query {position}: {one_line(query.text)}"
        if rows:
            console.print(console_table(rows, title=title))
        else:
            console.print(title, markup=False)
            console.print("  All scores are 0.")
    if count > len(queries):
        console.print(f"... and {count - len(queries)} more queries in the scores.")


def one_line(text: str) -> str:
    """Return the beginning of a text, in one line.

    >>> one_line("a\\n\\n b")
    'a b'
    """
    line = " ".join(text.split())
    cut = len(line) > SHOWN_CHARACTERS
    return line[: SHOWN_CHARACTERS - 1] + "…" if cut else line
