"""The numbers of a comparison as plain rows for files, every digit kept."""

from collections.abc import Sequence

from jaxunlearn.report.comparison.run import ComparedRun
from jaxunlearn.report.comparison.scores import (
    compared,
    labels_of,
    leading_scores,
    other_scores,
)
from jaxunlearn.report.comparison.tables import landmarks
from jaxunlearn.report.comparison.track import norm_rows, track_rows

CAPTIONS = {
    "summary": "The runs beside the retrained and the original model.",
    "scores": "Every score with its 95 % interval and its distance to the retrained "
    "model, also in half-widths of the retrained model’s own interval.",
    "attacks": "What each attack gets back, with 95 % intervals.",
    "verdicts": "The largest excess of each attack over the retrained model.",
    "membership": "Membership attacks.",
    "layers": "Change of each layer.",
    "curves": "Losses on the way.",
    "track": "Influence through training on the records that were followed: mean "
    "scores with 95 % intervals over the records.",
    "track_norms": "Mean gradient norm of the followed records in each part.",
    "cost": "Cost.",
}
"""What the tables hold, by name."""


def export_rows(runs: Sequence[ComparedRun]) -> dict[str, list[dict]]:
    """Return all tables by name; those without numbers have no rows."""
    return {
        "summary": summary_rows(runs),
        "scores": score_rows(runs),
        "attacks": attack_rows(runs),
        "verdicts": verdicts(runs),
        "membership": membership_rows(runs),
        "layers": layer_rows(runs),
        "curves": curve_rows(runs),
        "track": track_rows(runs),
        "track_norms": norm_rows(runs),
        "cost": cost_rows(runs),
    }


def summary_rows(runs: Sequence[ComparedRun]) -> list[dict]:
    """Return a row a model and a column a leading score."""
    columns = leading_scores(runs)
    if not columns:
        return []
    models = [(run.name, run.scores) for run in runs]
    for block, name in (("reference", "retrained"), ("original", "original")):
        found = landmarks(runs, block)
        models += [
            (name if len(found) == 1 else f"{name} of {', '.join(of)}", model["scores"])
            for model, of in found
        ]
    called = labels_of(columns)
    return [
        {"run": name} | {called[score]: scores.get(score) for score in columns}
        for name, scores in models
    ]


def score_rows(runs: Sequence[ComparedRun]) -> list[dict]:
    """Return a row a score of each run."""
    names = [*leading_scores(runs), *other_scores(runs)]
    return [
        {"run": run.name, "score": score}
        | compared(run, score)._asdict()
        | {k: run.block("counts").get(score, {}).get(k) for k in ("used", "left_out")}
        for run in runs
        for score in names
        if run.scores.get(score) is not None
    ]


def attack_rows(runs: Sequence[ComparedRun]) -> list[dict]:
    """Return a row a point of each attack."""
    return [
        {
            "run": run.name,
            "attack": attack["name"],
            "model": model,
            "x": point["x"],
            "metric": attack["metric"],
            "value": point["value"],
            "low": point.get("low"),
            "high": point.get("high"),
        }
        for run in runs
        for attack in run.attacks
        for model, points in attack["curves"].items()
        for point in points
    ]


def verdicts(runs: Sequence[ComparedRun]) -> list[dict]:
    """Return a row an attack of each run: what it recovers."""
    rows = []
    for run in runs:
        for attack in run.attacks:
            excess = attack.get("excess") or {}
            rows.append(
                {"run": run.name, "attack": attack["name"], "metric": attack["metric"]}
                | {key: excess.get(key) for key in ("value", "low", "high")}
                | {"recovers": attack.get("recovers")}
            )
    return rows


def membership_rows(runs: Sequence[ComparedRun]) -> list[dict]:
    """Return a row a membership attack of each run."""
    return [
        {
            "run": run.name,
            "attack": attack,
            "auc": found.get("auc"),
            "tpr_at_1_fpr": found.get("tpr_at_1_fpr"),
            "forget": len(found["forget"]),
            "holdout": len(found["holdout"]),
        }
        for run in runs
        for attack, found in run.block("membership").items()
    ]


def layer_rows(runs: Sequence[ComparedRun]) -> list[dict]:
    """Return a row a layer of each run."""
    keys = ("parameter_distance", "cka_before", "cka_retrained")
    return [
        {"run": run.name, "layer": row["layer"]} | {key: row.get(key) for key in keys}
        for run in runs
        for row in run.block("layers") or ()
    ]


def curve_rows(runs: Sequence[ComparedRun]) -> list[dict]:
    """Return a row a point of each curve."""
    return [
        {
            "run": run.name,
            "curve": name,
            "along": curve.x,
            "at": row[curve.x],
            "loss": loss,
            "value": value,
        }
        for run in runs
        for name, curve in run.curves.items()
        for row in curve.rows
        for loss, value in row.items()
        if loss != curve.x
    ]


def cost_rows(runs: Sequence[ComparedRun]) -> list[dict]:
    """Return a row a run: what it cost."""
    found = []
    for run in runs:
        cost = run.block("cost")
        seconds = {f"seconds: {k}": v for k, v in (cost.get("seconds") or {}).items()}
        rest = {k: cost[k] for k in ("peak_bytes", "flops") if k in cost}
        found.append((run.name, seconds | rest))
    columns = list(dict.fromkeys(key for _, values in found for key in values))
    return [
        {"run": name} | {column: values.get(column) for column in columns}
        for name, values in found
        if values
    ]
