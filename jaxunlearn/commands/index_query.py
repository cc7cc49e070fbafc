"""``jaxunlearn index query``: the examples that an index finds for queries."""

import dataclasses
from typing import Any

from jaxunlearn.commands.console import console, working
from jaxunlearn.commands.index_options import Query
from jaxunlearn.commands.influence_queries import SHOWN_QUERIES, show_queries
from jaxunlearn.commands.inputs import Inputs, prepare, provenance_of
from jaxunlearn.commands.outputs import check_output
from jaxunlearn.data import record_text
from jaxunlearn.influence import (
    damped_inverse,
    open_index,
    projected_fisher,
    save_scores,
    top_k,
)
from jaxunlearn.influence.coverage import coverage_of
from jaxunlearn.influence.index.description import Index
from jaxunlearn.influence.index.results import check_records, index_scores, query_rows
from jaxunlearn.ranges import check_number
from jaxunlearn.report import write_influence_page
from jaxunlearn.report.influence.facts import facts_of
from jaxunlearn.report.influence.queries import query_influences


def query(options: Query) -> int:
    """Query an index."""
    check_number("top", options.top, 1)
    check_number("batch_size", options.batch_size, 1)
    check_number("damping_share", options.damping_share, 0)
    check_output("out", options.out, ".npz")
    check_output("page", options.page, ".html")
    held, inputs = opened(options)
    with working("Projecting the queries' gradients"):
        held, rows = query_rows(
            *(held, inputs.model.per_example_loss, inputs.params),
            *(list(inputs.query or ()), len(inputs.query_records)),
        )
    preconditioner = None
    if not options.no_precondition:
        with working("Fisher matrix of the rows"):
            fisher = projected_fisher(held)
            preconditioner = damped_inverse(fisher, share=options.damping_share)
    how: dict[str, Any] = {"cosine": options.cosine, "preconditioner": preconditioner}
    with working("Reading the index"):
        shown = rows[:SHOWN_QUERIES]
        best = top_k(held, shown, k=min(options.top, held.rows), **how)
    texts = [record_text(record) for record in inputs.query_records[:SHOWN_QUERIES]]
    queries = query_influences(texts, best, inputs.train_records)
    loss, sample = inputs.model.per_example_loss, next(iter(inputs.train))
    show_queries(
        *(queries, len(rows)),
        coverage_of(loss, inputs.params, sample, held.about.get("layers")),
    )
    if options.out is None and options.page is None:
        return 0
    with working("Scores of all rows"):
        found = index_scores(
            *(held, rows, loss, inputs.params, sample),
            damping_share=None if options.no_precondition else options.damping_share,
            **how,
        )
    files = {"model": options.model, "train": options.train, "query": options.query}
    if options.out is not None:
        asked = provenance_of(inputs, files, asked_of(options, held))
        save_scores(options.out, dataclasses.replace(found, provenance=asked))
        console.print(f"Scores: {options.out}")
    if options.page is not None:
        facts = facts_of(found, inputs.train, files) | {"index": str(options.index)}
        write_influence_page(options.page, queries, facts=facts)
        console.print(f"Page: {options.page}")
    return 0


def opened(options: Query) -> tuple[Index, Inputs]:
    """Return the index, and the model and data that are to fit it.

    Raises:
      FileNotFoundError: There is no index, model or file.
      ValueError: The index is of other training data.
    """
    held = open_index(options.index, model_hash=None)
    inputs = prepare(
        model=options.model,
        train=options.train,
        query=options.query,
        layers=held.about.get("layers"),
        batch_size=options.batch_size,
        max_length=held.about.get("max_length"),
    )
    check_records(held, inputs.train_records)
    return held, inputs


def asked_of(options: Query, held: Index) -> dict[str, Any]:
    """Return the options that the scores follow from."""
    return {
        "cosine": options.cosine,
        "projection": dataclasses.asdict(held.projection),
    }
