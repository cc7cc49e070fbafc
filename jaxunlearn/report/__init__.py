"""Tables, figures and one self-contained HTML page from the results of a run."""

from jaxunlearn.report.comparison.page import write_comparison
from jaxunlearn.report.comparison.pareto import pareto_front
from jaxunlearn.report.comparison.run import ComparedRun
from jaxunlearn.report.comparison.runs import read_runs
from jaxunlearn.report.comparison.scores import sentence_of
from jaxunlearn.report.influence.page import (
    Influential,
    QueryInfluence,
    write_influence_page,
)
from jaxunlearn.report.kit.export import csv_text, latex_table, write_tables
from jaxunlearn.report.kit.tables import console_table, html_table, text_of, visible
from jaxunlearn.report.run.outcome import Verdict, loss_rows, verdict
from jaxunlearn.report.run.page import write_report

__all__ = [
    "ComparedRun",
    "Influential",
    "QueryInfluence",
    "Verdict",
    "console_table",
    "csv_text",
    "html_table",
    "latex_table",
    "loss_rows",
    "pareto_front",
    "read_runs",
    "sentence_of",
    "text_of",
    "verdict",
    "visible",
    "write_comparison",
    "write_influence_page",
    "write_report",
    "write_tables",
]
