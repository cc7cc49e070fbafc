"""What ``influence`` and ``index query`` show: rankings with texts, and tokens."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxunlearn.commands.console import console, working
from jaxunlearn.commands.influence_inputs import Inputs
from jaxunlearn.data import collate, record_text
from jaxunlearn.data.text.decoding import token_texts
from jaxunlearn.report import Influential, QueryInfluence, console_table, text_of

if TYPE_CHECKING:
    from jaxunlearn.influence import InfluenceScores

SHOWN_QUERIES = 10
"""Queries beyond these are in the scores file alone."""

SHOWN_CHARACTERS = 100


def ranked_queries(
    found: "InfluenceScores", inputs: Inputs, top: int, aggregate: str | None
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
    queries = []
    for position, text in enumerate(texts):
        row = found.scores[position]
        if not np.isfinite(row).all():
            raise ValueError(
                f"{int((~np.isfinite(row)).sum())} scores of query {position} are not "
                f"finite; {' '.join(found.notes) or 'raise --damping'}"
            )
        order = np.argsort(-row, kind="stable")
        queries.append(
            query_influence(
                text,
                [(int(found.index[i]), float(row[i])) for i in order[:top]],
                [(int(found.index[i]), float(row[i])) for i in order[::-1][:top]],
                inputs.train_records,
            )
        )
    return queries


def query_influence(
    text: str,
    highest: Sequence[tuple[int, float]],
    lowest: Sequence[tuple[int, float]],
    records: Sequence[dict],
) -> QueryInfluence:
    """Return a query with (position, score) of both ends, each by its sign alone."""

    def named(pairs: Sequence[tuple[int, float]], sign: int) -> list[Influential]:
        return [
            Influential(index, score, record_text(records[index]))
            for index, score in pairs
            if score * sign > 0
        ]

    return QueryInfluence(text, named(highest, 1), named(lowest, -1))


def show_queries(queries: Sequence[QueryInfluence], count: int) -> None:
    """Print a table of proponents and opponents for each query."""
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


def with_tokens(
    queries: Sequence[QueryInfluence],
    found: "InfluenceScores",
    inputs: Inputs,
    most: int,
) -> list[QueryInfluence]:
    """Return the queries with the tokens of their ``most`` strongest examples.

    A token's value is its share of the score: the shares add up to it. Of cosine and
    RelatIF, which divide by a length of the training example, so are the shares.
    """
    ranked = [(*q.proponents[:most], *q.opponents[:most]) for q in queries]
    chosen = sorted({example.index for examples in ranked for example in examples})
    if not chosen:
        return list(queries)
    shares = token_shares(found, inputs, chosen, len(queries))
    places = {index: place for place, index in enumerate(chosen)}

    def tokens_of(position: int, example: Influential) -> Influential:
        ids = inputs.train.data.examples[example.index].input_ids
        values = shares[position, places[example.index], : len(ids)]
        if found.method in ("cosine", "relatif"):
            total = values.sum()
            values = values * (example.score / total if total else 0.0)
        texts = token_texts(inputs.tokenizer, ids.tolist())
        tokens = tuple(zip(texts, values.tolist(), strict=True))
        return example._replace(tokens=tokens)

    return [
        query._replace(
            **{
                side: [tokens_of(position, e) for e in examples[:most]]
                + list(examples[most:])
                for side, examples in (
                    ("proponents", query.proponents),
                    ("opponents", query.opponents),
                )
            }
        )
        for position, query in enumerate(queries)
    ]


def token_shares(
    found: "InfluenceScores", inputs: Inputs, chosen: Sequence[int], queries: int
) -> np.ndarray:
    """Return each token's part of the scores, float32[queries, chosen, T]."""
    from jaxunlearn.gradients import token_contributions

    data = inputs.train
    parts = [
        collate(
            data.data,
            chosen[start : start + data.batch_size],
            batch_size=data.batch_size,
            length=data.length,
        )
        for start in range(0, len(chosen), data.batch_size)
    ]
    with working("Contributions of single tokens"):
        shares = token_contributions(
            inputs.model.per_example_loss,
            inputs.params,
            parts,
            {name: x[:queries] for name, x in (found.directions or {}).items()},
            layers=found.coverage["layers"],
        )
    return np.asarray(shares)[:, : len(chosen)].astype(np.float64)


def facts_of(
    found: "InfluenceScores", inputs: Inputs, files: Mapping[str, str | None]
) -> dict[str, str]:
    """Return what a reader must know of the scores."""
    queries, examples = found.scores.shape
    cut = inputs.train.truncated
    note = f", {cut} cut at {inputs.train.length} tokens" if cut else ""
    facts = {
        "method": found.method,
        "coverage": coverage_text(found.coverage),
        "curvature": found.curvature,
        "damping": damping_text(found.damping),
        "model": str(files["model"]),
        "training data": f"{files['train']}: {examples} examples{note}",
        "queries": f"{files['query']}: {queries}" if files["query"] else "none",
    }
    if found.coverage["checkpoints"] > 1:
        facts["checkpoints"] = str(found.coverage["checkpoints"])
    return facts


def coverage_text(coverage: Mapping[str, Any]) -> str:
    """Return which parameters the scores see.

    >>> coverage_text({"parameters": 5, "of": 20, "layers": "mlp"})
    "5 of 20 parameters (25 %), those that 'mlp' matches"
    """
    seen, tapped = coverage["parameters"], coverage.get("tapped")
    if seen is None:
        where = f": inputs of {tapped:,} weights" if tapped is not None else ""
        return f"activations, no parameters{where}"
    text = f"all {coverage['of']:,} parameters"
    if coverage["layers"] is not None:
        share = 100 * seen / coverage["of"]
        text = f"{seen:,} of {coverage['of']:,} parameters ({share:.3g} %), those that "
        text += f"{coverage['layers']!r} matches"
    if tapped is None or tapped == seen:
        return text
    return f"{text}; {tapped:,} of them by taps, the others slowly, by vmap(grad)"


def damping_text(damping: Any) -> str:
    """Return a damping, or the range of those of many layers.

    >>> damping_text({"a": [0.5], "b": [0.25, 1.0]}), damping_text(None)
    ('0.25 to 1, by layer', 'none')
    """
    if damping is None or isinstance(damping, str):
        return damping or "none"
    if isinstance(damping, Mapping):
        damping = [value for values in damping.values() for value in np.ravel(values)]
    values = np.ravel(damping)
    low, high = float(np.min(values)), float(np.max(values))
    if low == high:
        return text_of(low)
    return f"{text_of(low)} to {text_of(high)}, by layer"
