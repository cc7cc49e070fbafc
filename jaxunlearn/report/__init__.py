"""Tables, figures and one self-contained HTML page from the results of a run."""

from jaxunlearn.report.influence_page import (
    Influential,
    QueryInfluence,
    write_influence_page,
)
from jaxunlearn.report.outcome import Verdict, loss_rows, verdict
from jaxunlearn.report.page import write_report
from jaxunlearn.report.tables import console_table, html_table, text_of

__all__ = [
    "Influential",
    "QueryInfluence",
    "Verdict",
    "console_table",
    "html_table",
    "loss_rows",
    "text_of",
    "verdict",
    "write_influence_page",
    "write_report",
]
