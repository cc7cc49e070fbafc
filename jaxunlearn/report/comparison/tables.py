"""The numbers of a comparison as rows, for the page and for files."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from jaxunlearn.json_shapes import is_number
from jaxunlearn.report.comparison.panel_grid import (
    ORIGINAL,
    RETRAINED,
    Look,
    look,
    swatch,
)
from jaxunlearn.report.comparison.run import ComparedRun
from jaxunlearn.report.comparison.scores import (
    LEADING,
    MARKS,
    best,
    compared,
    difference_text,
    finite,
    interval,
    label_of,
    labels_of,
    leading_scores,
    short,
    times,
)
from jaxunlearn.report.run.page import duration

UNITS = ("", "k", "M", "G", "T", "P", "E")


def score_rows(runs: Sequence[ComparedRun], scores: Sequence[str]) -> list[dict]:
    """Return a row a model, a column a score, as the page shows them.

    Under a value stand its 95 % interval and the distance to the retrained model:
    value - reference, and in half-widths of the reference's own interval. "best" marks
    the best run of each score. The retrained and original models follow the runs, each
    different one once.

    Args:
      runs: The runs.
      scores: The columns, by the names of their file.

    Returns:
      Rows for ``html_table``; the first column is "run".
    """
    bests = {score: best(runs, score) for score in scores}
    rows = [
        {"run": head(run.name, look(position))}
        | {s: cell(run, s, best=run.name in bests[s]) for s in scores}
        for position, run in enumerate(runs)
    ]
    for block, name, of in (
        ("reference", "retrained", RETRAINED),
        ("original", "original", ORIGINAL),
    ):
        found = landmarks(runs, block)
        for model, names in found:
            note = note_line(model, names if len(found) > 1 else ())
            row: dict[str, Any] = {"run": head(name, of, note)}
            for score in scores:
                value = model.get("scores", {}).get(score)
                ends = interval(model.get("intervals") or {}, score)
                row[score] = None if value is None else value_cell(value, *ends)
            rows.append(row)
    return rows


def headed(rows: Sequence[Mapping]) -> list[dict]:
    """Return rows whose columns are scores, under names for readers."""
    called = labels_of([column for column in rows[0] if column != "run"])
    return [
        {called.get(column, column): value for column, value in row.items()}
        for row in rows
    ]


def direction_of(score: str) -> tuple[str, str] | None:
    """Return the sign and words of which way a score is better, if it is known."""
    better = LEADING[score].better if score in LEADING else None
    return None if better is None else MARKS[better]


def landmarks(runs: Sequence[ComparedRun], block: str) -> list[tuple[dict, list[str]]]:
    """Return each different model of a block, with the names of its runs."""
    found: list[tuple[dict, list[str]]] = []
    for run in runs:
        model = run.block(block)
        if not model:
            continue
        for known, names in found:
            if known == model:
                names.append(run.name)
                break
        else:
            found.append((model, [run.name]))
    return found


def retraining_rows(runs: Sequence[ComparedRun]) -> list[dict]:
    """Return a row a run of what was measured against many retrained models."""

    def numbers(run: ComparedRun) -> dict:
        found = run.block("retraining").items()
        return {label_of(name): value for name, value in found if is_number(value)}

    return plain_rows(runs, numbers)


def distance_rows(runs: Sequence[ComparedRun]) -> list[dict]:
    """Return a row a run, a column a leading score: how far among the retrained.

    In standard deviations of the retrained models' scores, with the share of them that
    stand at least as far out.
    """

    def distances(run: ComparedRun) -> dict:
        found = run.block("retraining").get("distance") or {}
        return {
            label_of(score): Markup("{} sd<small>p = {}</small>").format(
                difference_text(found[score]["z"]), short(found[score].get("p_value"))
            )
            for score in leading_scores(runs)
            if finite((found.get(score) or {}).get("z"))
        }

    return plain_rows(runs, distances)


def cost_rows(runs: Sequence[ComparedRun]) -> list[dict]:
    """Return a row a run: seconds of each stage, peak memory, operations."""

    def cost(run: ComparedRun) -> dict:
        found = run.block("cost")
        seconds = {
            name: None if value is None else duration(value)
            for name, value in (found.get("seconds") or {}).items()
        }
        rest = {}
        for key, name, unit in (
            ("peak_bytes", "peak memory", "B"),
            ("flops", "operations", "FLOP"),
        ):
            if found.get(key) is not None:
                rest[name] = with_unit(found[key], unit)
        return seconds | rest

    return plain_rows(runs, cost)


def version_rows(runs: Sequence[ComparedRun]) -> list[dict]:
    """Return a row a package, a column a run; versions of one run are joined."""
    of_runs: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        for about in run.about.values():
            for package, version in (about.get("versions") or {}).items():
                known = of_runs.setdefault(package, {}).setdefault(run.name, [])
                if str(version) not in known:
                    known.append(str(version))
    having = [run.name for run in runs if any(run.name in v for v in of_runs.values())]
    return [
        {"package": package}
        | {name: ", ".join(found[name]) if name in found else None for name in having}
        for package, found in of_runs.items()
    ]


def head(name: str, of: Look, note: str = "") -> Markup:
    """Return a model's name beside a swatch of its look."""
    small = Markup("<small>{}</small>").format(note) if note else ""
    return Markup('{}<span class="name">{}</span>{}').format(swatch(of), name, small)


def with_unit(value: float, unit: str) -> str:
    """Return a large number with a decimal prefix.

    >>> with_unit(1_234_000_000, "B"), with_unit(12, "B"), with_unit(3.2e13, "FLOP")
    ('1.23 GB', '12 B', '32 TFLOP')
    """
    step = 0
    while abs(value) >= 999.5 and step < len(UNITS) - 1:
        value, step = value / 1000, step + 1
    return f"{value:.3g} {UNITS[step]}{unit}"


def plain_rows(
    runs: Sequence[ComparedRun], values_of: Callable[[ComparedRun], Mapping]
) -> list[dict]:
    """Return a row for each run that has values, a column for each name."""
    found = [(i, run, dict(values_of(run))) for i, run in enumerate(runs)]
    columns = list(dict.fromkeys(name for _, _, values in found for name in values))
    return [
        {"run": head(run.name, look(i))}
        | {column: values.get(column) for column in columns}
        for i, run, values in found
        if values
    ]


def cell(run: ComparedRun, score: str, *, best: bool) -> Markup | None:
    """Return a score in a table, with its interval and how many were left out."""
    found = compared(run, score)
    if found.value is None:
        return None
    parts = [value_cell(found.value, found.low, found.high, best=best)]
    left_out = counted(run, score)
    if left_out is not None:
        parts.append(Markup("<small>{}</small>").format(left_out))
    if found.difference is not None:
        away = [difference_text(found.difference)]
        if found.half_widths is not None:
            away.append(f"{times(found.half_widths)} hw")
        parts += [Markup('<small class="away">{}</small>').format(one) for one in away]
    return Markup("").join(parts)


def counted(run: ComparedRun, score: str) -> str | None:
    """Over how many of the questions a score is a mean, where some had no value."""
    count = run.block("counts").get(score, {})
    used, left_out = count.get("used"), count.get("left_out")
    if used is None or not left_out:
        return None
    return f"{used:g} of {used + left_out:g} questions"


def value_cell(
    value: float, low: float | None, high: float | None, *, best: bool = False
) -> Markup:
    """Return a value in a table, with its interval."""
    text = Markup("<b>{}</b><i>best</i>" if best else "{}").format(short(value))
    if low is None or high is None:
        return text
    return text + Markup("<small>[{}, {}]</small>").format(short(low), short(high))


def note_line(model: Mapping, names: Sequence[str]) -> str:
    """Return a line below a value."""
    count = model.get("count")
    parts = [model.get("name") or ""]
    if count is not None and count != 1:
        parts.append(f"{count:g} models")
    if names:
        parts.append(f"of {', '.join(names)}")
    return ", ".join(part for part in parts if part)
