"""What a reader must know of influence scores: method, coverage, curvature, damping."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxunlearn.data import Batches
from jaxunlearn.influence.result import InfluenceScores
from jaxunlearn.report.kit.tables import text_of


def facts_of(
    found: InfluenceScores, train: Batches, files: Mapping[str, str | None]
) -> dict[str, str]:
    """Return what a reader must know of scores.

    Args:
      found: The scores.
      train: The training data.
      files: ``model``, ``train`` and ``query``, as they were given.
    """
    queries, examples = found.scores.shape
    cut = train.truncated
    note = f", {cut} cut at {train.length} tokens" if cut else ""
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
