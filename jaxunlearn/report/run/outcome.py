"""What the numbers of a run say, in plain words.

The losses are mean cross-entropies in nats per token, of the examples to forget, the
examples to keep ("retain") and look-alikes that no model was trained on ("unseen").
A loss L means that the right token got the probability exp(-L), in geometric mean.
Where a run counted facts, they are judged beside the losses.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from jaxunlearn.report.run.known_facts import FACTS_TOLERANCE, beyond, kept, known
from jaxunlearn.unlearning.limits import Limits

BEFORE = "before training"
TRAINED = "trained"
RETRAINED = "retrained without them"
RETAIN_TOLERANCE = Limits().max_retain_nats or 0.0
"""Nats a token by which the retain loss may rise and the rest count as kept."""
REFERENCES = (BEFORE, TRAINED, RETRAINED)
# How much of the way from the trained model's forget loss to the target counts as
# having arrived, as half way, and as having gone too far.
ARRIVED, PARTLY, PAST = 0.95, 0.5, 1.25

REQUIRED = {
    "title": (),
    "request": ("text", "how"),
    "losses": (TRAINED,),
    "target": ("forget_loss", "meaning"),
}


class Verdict(NamedTuple):
    """The outcome of the first method of a run.

    Attributes:
      level: "good", "price", "past", "partly", "not", "nothing" or "failed".
      headline: The outcome in a few words.
      sentences: The numbers behind it, one sentence each.
    """

    level: str
    headline: str
    sentences: tuple[str, ...]


def check_results(results: Mapping) -> None:
    """Check that the keys without which there is nothing to report are there.

    Args:
      results: The dict that ``write_report`` describes.

    Raises:
      ValueError: If a required key is missing; the message names it.
    """
    for key, inner in REQUIRED.items():
        if key not in results:
            raise ValueError(f"results has no key {key!r}, which the report needs")
        for name in inner:
            if name not in results[key]:
                raise ValueError(
                    f"results[{key!r}] has no key {name!r}, which the report needs"
                )
    for model, losses in results["losses"].items():
        for name in ("forget", "retain"):
            if name not in losses:
                raise ValueError(
                    f"results['losses'][{model!r}] has no key {name!r}, which the "
                    "report needs"
                )
    if not methods(results):
        raise ValueError(
            "results['losses'] has no method: a key besides "
            f"{BEFORE!r}, {TRAINED!r} and {RETRAINED!r} is the model after unlearning"
        )


def methods(results: Mapping) -> list[str]:
    """Return the names of the unlearning methods in the losses, in their order."""
    return [name for name in results["losses"] if name not in REFERENCES]


def way_to_target(results: Mapping, model: str) -> float:
    """Return how far a model's forget loss went from the trained model's to the target.

    (model - trained) / (target - trained): 0 where nothing was forgotten, 1 at the
    target; NaN where the trained model is at the target already.
    """
    trained = results["losses"][TRAINED]["forget"]
    span = results["target"]["forget_loss"] - trained
    if not span > 0:
        return math.nan
    return (results["losses"][model]["forget"] - trained) / span


def retain_change(results: Mapping, model: str) -> float:
    """By how many nats a token a model's retain loss lies above the trained one's."""
    losses = results["losses"]
    return losses[model]["retain"] - losses[TRAINED]["retain"]


def retain_tolerance(results: Mapping) -> float:
    """Return the rise of the retain loss that counts as kept, in nats a token."""
    return results["target"].get("retain_tolerance", RETAIN_TOLERANCE)


def loss_rows(results: Mapping) -> list[dict]:
    """Return one row a model for a table: its losses, and what became of them.

    Args:
      results: The dict that ``write_report`` describes.

    Returns:
      Dicts with the columns ``model``; ``knows`` and ``others``, the facts known of
      those to forget and to keep (if facts were counted); ``forget``, ``retain``,
      ``unseen`` (if any model has one); and ``way to target`` in per cent and ``retain
      change`` in nats, which are None for the models that are not compared with the
      trained one.
    """
    rows = []
    for model, losses in results["losses"].items():
        compared = model not in (BEFORE, TRAINED)
        row: dict = {"model": model}
        if "facts" in results:
            for column, kind in (("knows", "forget"), ("others", "retain")):
                count = known(results, model, kind)
                row[column] = None if count is None else str(count)
        row |= {"forget": losses["forget"], "retain": losses["retain"]}
        if any("unseen" in other for other in results["losses"].values()):
            row["unseen"] = losses.get("unseen")
        way, change = way_to_target(results, model), retain_change(results, model)
        row["way to target"] = percent(way) if compared else None
        row["retain change"] = nats(change) if compared else None
        rows.append(row)
    return rows


def verdict(results: Mapping) -> Verdict:
    """Judges the first method by its forget loss and by what the rest paid.

    Args:
      results: The dict that ``write_report`` describes.

    Returns:
      "good" when the forget loss is at the target (95 to 125 % of the way) and the
      retain loss rose by no more than the tolerance, and, where facts were counted,
      no fact to forget is known that the retrained model does not know, and no more
      than 2 % of everybody else's are lost; otherwise what is amiss.
    """
    method = methods(results)[0]
    losses = results["losses"][method]
    if not (math.isfinite(losses["forget"]) and math.isfinite(losses["retain"])):
        sentence = (
            f"After {method} a loss is not a finite number: the step was too big."
        )
        return Verdict("failed", "The model broke.", (sentence,))
    way = way_to_target(results, method)
    if math.isnan(way):
        sentence = (
            f"The trained model's loss on the examples to forget, "
            f"{results['losses'][TRAINED]['forget']:.3g}, is already at the target of "
            f"{results['target']['forget_loss']:.3g}."
        )
        return Verdict("nothing", "There was nothing to forget.", (sentence,))
    rest_kept, left = keeps_rest(results, method), facts_left(results, method)
    if way > PAST:
        level, headline = "past", "Forgotten beyond the target."
    elif way >= ARRIVED and not left:
        level = "good" if rest_kept else "price"
        headline = f"Forgotten, {'and the rest kept' if rest_kept else 'at a price'}."
    elif way >= PARTLY:
        level, headline = "partly", "Partly forgotten."
    else:
        level, headline = "not", "Not forgotten."
    return Verdict(level, headline, tuple(outcome_sentences(results, method)))


def probability(loss: float) -> str:
    """exp(-loss) as a percentage with two digits.

    >>> probability(0.1), probability(2.3), probability(9.0)
    ('90 %', '10 %', '0.012 %')
    """
    return percent(math.exp(-loss))


def percent(share: float, *, sign: bool = False) -> str:
    """Return a share as a percentage with two digits.

    >>> percent(0.0042), percent(0.987), percent(3.14), percent(0.0191, sign=True)
    ('0.42 %', '99 %', '314 %', '+1.9 %')
    """
    if math.isnan(share):
        return "not a number"
    value = 100 * share
    if abs(value) < 0.001:
        return "0 %"
    plus = "+" if sign else ""
    return f"{value:{plus}.2g} %" if abs(value) < 99.5 else f"{value:{plus},.0f} %"


def nats(change: float) -> str:
    """Return a change of a loss.

    >>> nats(0.00853), nats(-0.2), nats(1.6), nats(0.0)
    ('+0.0085', '-0.2', '+1.6', '0')
    """
    return "0" if abs(change) < 5e-6 else f"{change:+.2g}"


def keeps_rest(results: Mapping, method: str) -> bool:
    """Return whether what was to be kept is."""
    if not retain_change(results, method) <= retain_tolerance(results):
        return False
    if "facts" not in results:
        return True
    found = kept(results, method, TRAINED)
    return found.of - found.number <= FACTS_TOLERANCE * found.of


def facts_left(results: Mapping, method: str) -> int:
    """Return how many facts are known that should be forgotten."""
    return beyond(results, method, RETRAINED) if "facts" in results else 0


def fact_sentences(results: Mapping, method: str):
    """Yield what became of the facts."""
    asked, left = known(results, TRAINED), known(results, method)
    if asked is None or left is None:
        return
    sentence = (
        f"Of the {asked.of} facts to forget the trained model answers {asked.number} "
        f"right; after {method}, {left.number}"
    )
    without = known(results, RETRAINED)
    if without is not None:
        sentence += f"; a model retrained without them, {without.number}"
    yield sentence + "."
    rest = kept(results, method, TRAINED)
    yield f"Of everybody else's facts that it knew, {rest} are still answered right."


def outcome_sentences(results: Mapping, method: str):
    """Yield what became of the losses and facts."""
    losses, target = results["losses"], results["target"]
    trained, after = losses[TRAINED], losses[method]
    if "facts" in results:
        yield from fact_sentences(results, method)
    yield (
        f"{capital(method)} moved the loss on the examples to forget from "
        f"{trained['forget']:.3g} to {after['forget']:.3g} nats a token: the right "
        f"next token, which had a probability of {probability(trained['forget'])}, "
        f"now has {probability(after['forget'])}."
    )
    yield (
        f"That is {percent(way_to_target(results, method))} of the way to the target "
        f"of {target['forget_loss']:.3g}, {target['meaning']}."
    )
    if way_to_target(results, method) > PAST:
        yield (
            "A loss higher than that of a model that never saw the examples can itself "
            "give them away."
        )
    change, allowed = retain_change(results, method), retain_tolerance(results)
    judged = "within" if change <= allowed else "more than"
    yield (
        f"On the examples to keep the loss went from {trained['retain']:.3g} to "
        f"{after['retain']:.3g} ({nats(change)} nats, {judged} the "
        f"{allowed:g} allowed)."
    )
    for other in methods(results)[1:]:
        sentence = (
            f"{capital(other)} ends at a forget loss of {losses[other]['forget']:.3g} "
            f"and changes the loss on the examples to keep by "
            f"{nats(retain_change(results, other))} nats"
        )
        if known(results, other) is not None:
            rest = kept(results, other, TRAINED)
            sentence += f": {rest} of everybody else's facts are left"
        yield sentence + "."
    if RETRAINED in losses:
        yield (
            f"A model really retrained without them has a forget loss of "
            f"{losses[RETRAINED]['forget']:.3g} and a retain loss of "
            f"{losses[RETRAINED]['retain']:.3g}."
        )


def capital(name: str) -> str:
    """Return a name with a capital first letter."""
    return name[:1].upper() + name[1:]
