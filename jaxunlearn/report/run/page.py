"""The results of a run as one HTML file that needs nothing but itself."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from jaxunlearn.evaluation.text.facts import states
from jaxunlearn.files import write_text
from jaxunlearn.report.kit import drawing
from jaxunlearn.report.kit.marking import mark_answer
from jaxunlearn.report.kit.tables import html_table, text_of
from jaxunlearn.report.kit.templates import environment
from jaxunlearn.report.run import figures, outcome
from jaxunlearn.report.run.known_facts import kept, known
from jaxunlearn.report.run.settings import settings_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = Path(__file__).parent
SHOWN_AT_ONCE = 8  # examples and matches beyond this are folded away
OPTIONAL = (
    *("facts", "matched", "calibration", "examples", "next_steps"),
    *("seconds", "settings", "versions", "command"),
)
FIGURE_LABELS = {
    "forget_retain_plane": "Forget loss against retain loss of every model",
    "loss_curves": "Forget, retain and unseen loss over the training steps",
    "relative_changes": "Relative change of each parameter leaf by each method",
}
LOSSES = ("forget", "retain", "unseen")
MODEL_NOTES = {
    outcome.BEFORE: "where training began",
    outcome.TRAINED: "has learned everything, also what is to be forgotten",
    outcome.RETRAINED: "the reference: never saw the examples to forget",
}


def write_report(results: Mapping, out_dir: str | os.PathLike[str]) -> Path:
    """Write DIR/report.html and its figures as PNG and SVG in DIR/figures.

    The page is one file: style and figures are inside it and nothing is fetched from a
    network. Every text is escaped. A section whose key is absent is left out.

    Args:
      results: A dict as JSON gives it. Losses are means in nats per token. Required:

        * ``title``: str;
        * ``request``: ``{"text", "how"}`` and perhaps ``"threshold"``: what was asked
          to be forgotten, and how it was matched with the training examples;
        * ``losses``: model -> ``{"forget", "retain"}`` and perhaps ``"unseen"``, in the
          order of the table. "before training", "trained" (required) and
          "retrained without them" are references, every other key is a method,
          one at least, the first the one that is judged;
        * ``target``: ``{"forget_loss", "meaning"}`` and perhaps ``"retain_tolerance"``
          in nats, 0.02 if absent.

        Optional:

        * ``facts``: ``{"forget": {model: [bool]}, "retain": {model: [bool]}}``, which
          facts a model answers right, for "trained" and every method at least;
        * ``matched``: list of ``{"index", "score", "text"}``;
        * ``evaluation`` and ``retraining``: lists of ``{"step", "forget", "retain",
          "unseen"}``; ``training``: list of ``{"step", "epoch", "loss"}``;
        * ``calibration``: method -> list of ``{"scale", "forget", "retain"}``;
        * ``changed``: method -> list of ``{"leaf", "relative_change"}``;
        * ``examples``: list of ``{"prompt", "truth", "answers": {model: str}, "kind":
          "forget" or "retain"}`` and perhaps ``"value"``, the fact's own words;
        * ``seconds``, ``versions``, ``settings``: dicts of a name and a value;
        * ``command``: str; ``next_steps``: list of str.
      out_dir: The folder, which is made if it does not exist.

    Returns:
      The path of the page.

    Raises:
      ValueError: If a required key is missing; the message names it.
    """
    outcome.check_results(results)
    out_dir = Path(out_dir)
    drawn = draw_figures(results)
    page = render_page(results, drawn)
    (out_dir / "figures").mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        drawing.save_figure(figure, out_dir / "figures" / name)
    path = out_dir / "report.html"
    write_text(path, page)
    return path


def draw_figures(results: Mapping) -> dict[str, "Figure"]:
    """Draw the figures that the results have numbers for, by name."""
    target = results["target"]["forget_loss"]
    drawn = {
        "forget_retain_plane": figures.forget_retain_plane(
            results["losses"],
            target=target,
            retain_tolerance=outcome.retain_tolerance(results),
            calibration=results.get("calibration"),
        )
    }
    if results.get("evaluation"):
        drawn["loss_curves"] = figures.loss_curves(
            results["evaluation"],
            retraining=results.get("retraining", ()),
            training=results.get("training", ()),
            target=target,
        )
    if results.get("changed"):
        drawn["relative_changes"] = figures.relative_changes(results["changed"])
    return drawn


def render_page(results: Mapping, drawn: Mapping[str, "Figure"]) -> str:
    """Render the page.

    Args:
      results: The dict that ``write_report`` describes.
      drawn: The figures of ``draw_figures``.

    Returns:
      The HTML text.

    Raises:
      ValueError: If a required key is missing; the message names it.
    """
    outcome.check_results(results)
    templates = environment(FOLDER)
    templates.filters.update(
        text=text_of,
        percent=outcome.percent,
        duration=duration,
    )
    return templates.get_template("page.html.jinja").render(
        results={**dict.fromkeys(OPTIONAL), **results},
        verdict=outcome.verdict(results),
        tiles=page_tiles(results),
        loss_table=loss_table(results),
        figures={
            name: Markup(
                drawing.inline_svg(figure, name=name, label=FIGURE_LABELS[name])
            )
            for name, figure in drawn.items()
        },
        examples=marked_examples(results.get("examples", ())),
        settings=settings_tables(results.get("settings") or {}),
        shown_at_once=SHOWN_AT_ONCE,
    )


def duration(seconds: float) -> str:
    """Return a time for readers.

    >>> duration(0.0123), duration(41.23), duration(272.0)
    ('0.012 s', '41 s', '4 min 32 s')
    """
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 99.5 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def page_tiles(results: Mapping) -> list[dict]:
    """Return the numbers to see first: what was asked, what is known, the price."""
    method = outcome.methods(results)[0]
    before, after = results["losses"][outcome.TRAINED], results["losses"][method]
    tiles = []
    if "matched" in results:
        count = len(results["matched"])
        label = "training examples match" + ("es" if count == 1 else "")
        tiles.append({"value": str(count), "label": f"{label} the request"})
    if "facts" in results:
        tiles += fact_tiles(results, method)
    else:
        chances = (outcome.probability(x["forget"]) for x in (before, after))
        label = "probability of the right token in what was to be forgotten"
        tiles.append({"value": " → ".join(chances), "label": label})
        allowed = f"{outcome.retain_tolerance(results):g} is allowed"
        label = f"nats of loss on the examples to keep ({allowed})"
        change = outcome.nats(outcome.retain_change(results, method))
        tiles.append({"value": change, "label": label})
    seconds = results.get("seconds", {})
    if method in seconds and "retraining" in seconds:
        label = f"to forget; retraining took {duration(seconds['retraining'])}"
        tiles.append({"value": duration(seconds[method]), "label": label})
    return tiles


def fact_tiles(results: Mapping, method: str) -> list[dict]:
    """Return how many facts are known before, after and by the retrained model."""
    tellings = {
        outcome.TRAINED: "facts to forget known before",
        method: "known after unlearning",
        outcome.RETRAINED: "known by a model retrained without them",
    }
    tiles = [
        {
            "value": str(known(results, model)),
            "label": f"{label} (loss {results['losses'][model]['forget']:.3g})",
        }
        for model, label in tellings.items()
        if known(results, model) is not None
    ]
    change = outcome.nats(outcome.retain_change(results, method))
    rest = f"of everybody else’s facts still right (loss {change})"
    return [
        *tiles,
        {"value": str(kept(results, method, outcome.TRAINED)), "label": rest},
    ]


def loss_table(results: Mapping) -> Markup:
    """Return the table of losses; under each the probability of the right token."""
    colours = dict(
        zip(outcome.methods(results), figures.METHOD_COLOURS * 9, strict=False)
    )
    name = Markup('<span class="key" style="background:{}"></span>{}<small>{}</small>')
    rows = []
    for row in outcome.loss_rows(results):
        model = row["model"]
        losses = {key: loss(row[key]) for key in LOSSES if key in row}
        head = name.format(
            colours.get(model, "transparent"), model, MODEL_NOTES.get(model, "")
        )
        rows.append({**row, "model": head, **losses})
    return html_table(rows)


def loss(value: float | None) -> Markup | None:
    """Return a loss with its probability."""
    if value is None:
        return None
    return Markup("{:.3f}<small>{}</small>").format(value, outcome.probability(value))


def marked_examples(examples: Sequence[Mapping]) -> list[dict]:
    """Return the examples with marked answers, of each kind in turn.

    So both kinds are among the first, which are not folded away.
    """
    turns = []
    for position, example in enumerate(examples):
        kinds = [other["kind"] for other in examples[:position]]
        answers = {
            model: judge(answer, example)
            for model, answer in example["answers"].items()
        }
        turns.append((kinds.count(example["kind"]), {**example, "answers": answers}))
    return [example for _, example in sorted(turns, key=lambda turn: turn[0])]


def judge(answer: str, example: Mapping) -> dict:
    """Return an answer with its right words marked, and how it is judged."""
    value = example.get("value")
    truth = example["truth"] if value is None else value
    marked = mark_answer(answer, truth=truth, prompt=example["prompt"])
    judged = f"{marked.right} of {marked.total} words" if marked.total else ""
    if value is not None:
        judged = "right" if states(answer, value) else "wrong"
    return {"html": marked.html, "judged": judged}
