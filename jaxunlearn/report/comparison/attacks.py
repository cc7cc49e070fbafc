"""How much attacks get back out of a model, beside the retrained model.

A retrained model never knew the examples, so what an attack gets out of it was put in
by the attack. Only what it gets out beyond that had been left in the model.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxunlearn.json_shapes import is_number
from jaxunlearn.report.comparison.panel_grid import (
    ORIGINAL,
    RETRAINED,
    look,
    panels,
    plain,
    title,
)
from jaxunlearn.report.comparison.run import ComparedRun
from jaxunlearn.report.comparison.scores import finite, label_of, short
from jaxunlearn.report.kit.drawing import INK, key, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class AttackVerdict(NamedTuple):
    """What an attack on a run came to.

    Attributes:
      run: The run's name.
      recovers: Whether it gets more out than of the retrained model; None where
        that was not judged.
      sentence: The same with its number.
      note: What the attack itself says.
    """

    run: str
    recovers: bool | None
    sentence: str
    note: str


def attack_names(runs: Sequence[ComparedRun]) -> list[str]:
    """Return the names of all attacks that were carried out on any run."""
    return list(dict.fromkeys(attack["name"] for run in runs for attack in run.attacks))


def attack_verdicts(runs: Sequence[ComparedRun], name: str) -> list[AttackVerdict]:
    """Return what one attack came to on each run that it was carried out on."""
    return [
        AttackVerdict(
            run.name,
            attack.get("recovers"),
            verdict_sentence(attack),
            attack.get("note") or "",
        )
        for _, run, attack in runs_having(runs, name)
    ]


def verdict_sentence(attack: Mapping[str, Any]) -> str:
    """Say how much more an attack gets out of the model than out of the retrained one.

    >>> verdict_sentence({"metric": "extraction_strength", "recovers": True,
    ...     "excess": {"value": 0.21, "low": 0.1, "high": 0.3}})
    'More comes back than from the retrained model: the largest excess of extraction
    strength is 0.21 (interval 0.1 to 0.3).'
    """
    judged = {
        True: "More comes back than from the retrained model",
        False: "It is not shown that more comes back than from the retrained model",
        None: "Not judged",
    }[attack.get("recovers")]
    excess, added = (with_interval(attack.get(key)) for key in ("excess", "added"))
    if excess is None:
        return f"{judged}: no excess was computed."
    metric = label_of(attack["metric"])
    text = f"{judged}: the largest excess of {metric} is {excess}"
    return f"{text}; the attack itself adds {added}." if added else f"{text}."


def attack_figure(runs: Sequence[ComparedRun], name: str) -> "Figure":
    """Draw what an attack gets back along its strength, a panel a run, on equal axes.

    In each panel the run, the retrained model (green, dashed) and, where measured, the
    original (dotted); bands are 95 % intervals.

    Args:
      runs: The runs; those without the attack are left out.
      name: The attack's.

    Returns:
      The figure.
    """
    having = runs_having(runs, name)
    first = having[0][2]
    metric = label_of(first["metric"])
    figure, grid = panels(
        first["x"].replace("_", " "), [metric] * len(having), height=1.6, share_y=True
    )
    places = [
        point["x"]
        for _, _, attack in having
        for points in attack["curves"].values()
        for point in points
    ]
    # Strengths that are no numbers, such as the names of prefixes, stand side by side.
    categories = list(dict.fromkeys(map(str, places)))
    if all(map(is_number, places)):
        categories = []
    others = {"reference": RETRAINED, "original": ORIGINAL}
    for axes, (position, run, attack) in zip(grid, having, strict=True):
        title(axes, run.name)
        for curve, of in {**others, "model": look(position)}.items():
            points = attack["curves"].get(curve) or ()
            draw_points(axes, points, of.line(), categories)
    if categories:
        grid[-1].set_xticks(range(len(categories)), [plain(c) for c in categories])
        if len(categories) > 4:
            grid[-1].tick_params(axis="x", rotation=30)
    drawn = {curve for _, _, attack in having for curve in attack["curves"]}
    names = {"reference": "retrained", "original": "original"}
    if len(having) == 1:
        model = key("after unlearning", **look(having[0][0]).line())
    else:
        model = key("after unlearning (in the run’s colour)", color=INK, linestyle="-")
    handles = [key(names[c], **of.line()) for c, of in others.items() if c in drawn]
    legend(figure, [model, *handles])
    return figure


def runs_having(runs: Sequence[ComparedRun], name: str) -> list[tuple]:
    """Return the runs that an attack was carried out on."""
    return [
        (position, run, attack)
        for position, run in enumerate(runs)
        for attack in run.attacks
        if attack["name"] == name
    ]


def with_interval(found: Mapping[str, Any] | None) -> str | None:
    """Return a value with its interval as text; None without a finite one."""
    value, low, high = ((found or {}).get(key) for key in ("value", "low", "high"))
    if not finite(value):
        return None
    if not (finite(low) and finite(high)):
        return short(value)
    return f"{short(value)} (interval {short(low)} to {short(high)})"


def draw_points(
    axes: "Axes", points: Sequence[Mapping], style: dict, categories: Sequence[str]
) -> None:
    """Draw a curve's finite points and the band around them."""
    points = [point for point in points if finite(point["value"])]
    if not points:
        return
    x = [
        categories.index(str(point["x"])) if categories else point["x"]
        for point in points
    ]
    axes.plot(x, [point["value"] for point in points], **style)
    banded = [
        (place, point["low"], point["high"])
        for place, point in zip(x, points, strict=True)
        if finite(point.get("low")) and finite(point.get("high"))
    ]
    if not banded:
        return
    place, low, high = zip(*banded, strict=True)
    colour = style["color"]
    if len(banded) == 1:
        axes.vlines(place, low, high, color=colour, linewidth=1.2)
    else:
        band = axes.fill_between(place, low, high, color=colour, alpha=0.15)
        band.set_linewidth(0)
