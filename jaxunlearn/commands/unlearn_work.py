"""Unlearning as ``jaxunlearn unlearn`` asks for it: from options to an outcome."""

import dataclasses
from typing import Any, NamedTuple

from jaxunlearn.commands.console import say, steps_shown
from jaxunlearn.commands.removal import Removal
from jaxunlearn.commands.unlearn_checks import given_target, limits_of
from jaxunlearn.commands.unlearn_methods import RECIPE_OPTIONS
from jaxunlearn.commands.unlearn_options import Options
from jaxunlearn.commands.unlearn_words import explanation, loss_rows, warning_of
from jaxunlearn.provenance import params_hash, versions


class Work(NamedTuple):
    """What unlearning came to."""

    outcome: Any
    rows: list[dict[str, Any]]  # losses before and after, a set each
    sentences: list[str]
    told: dict[str, Any]  # for unlearning.json


def carry_out(removal: Removal, options: Options) -> Work:
    """Unlearn, and measure before and after."""
    from jaxunlearn.data import in_order
    from jaxunlearn.tasks import language_task
    from jaxunlearn.unlearning import (
        METHODS,
        Sets,
        changed_leaves,
        unlearn,
    )
    from jaxunlearn.unlearning.exact.replay import replay_plan
    from jaxunlearn.unlearning.measuring import losses_of_sets, with_known
    from jaxunlearn.unlearning.origin import run_hash
    from jaxunlearn.unlearning.runner import RECIPE
    from jaxunlearn.unlearning.targets import check_rise, forget_target

    parts = {"forget": removal.forget, "retain": removal.retain}
    if removal.unseen is not None:
        parts["unseen"] = removal.unseen
    # One shape for all, so that their losses are one program.
    size = {
        "batch_size": options.batch_size,
        "length": max(x.length for x in parts.values()),
    }
    sets = Sets(**{n: in_order(x, **size) for n, x in parts.items()})
    row, run, own = METHODS[options.row], removal.run, dict(options.own)
    if run is not None and "run" in row.needs:
        run = run.with_start()  # which the target may ask for, and the method does
    task = language_task(removal.model)
    losses = losses_of_sets(task, sets)
    before = {name: getattr(losses, name)(removal.params) for name in parts}
    losses = with_known(losses, removal.params, before)
    target = forget_target(
        losses,
        removal.params,
        target=given_target(options) or options.target,
        start=None if run is None else lambda: run.start,
    )
    settings: dict[str, Any] = {}
    if row.form in ("objective", "edit"):
        if own.get("scale") is None:
            check_rise(target, before["forget"])
        settings["layers"] = options.layers or row.layers
    if row.form != "exact":
        # A wrapper goes to no target: one that nobody gave tells nothing of it.
        aimed = row.form != "wrapper" or not target.is_guess
        settings["target"] = target.loss if aimed else None
        settings["limits"] = limits_of(options)
    if row.form == "objective":
        recipe = {name: own.pop(name) for name in RECIPE_OPTIONS}
        settings["recipe"] = dataclasses.replace(
            RECIPE, batch_size=options.batch_size, **recipe
        )
        settings["keep_best"] = own.pop("keep_best")
        settings["evaluate_every"] = own.pop("evaluate_every")
        if settings["keep_best"] is not None:
            settings["target"] = None
    if "work" in own:
        settings["directory"] = own.pop("work")
    if target.is_guess and settings.get("target") is not None:
        say(
            "No reference was given: the target is the loss now plus 1 nat. Better: "
            "--unseen FILE with look-alikes."
        )
    if row.form == "exact":
        say(f"{replay_plan(run, removal.indices, checkpoint=own['checkpoint'])}.")
    with steps_shown() as on_step:
        outcome = unlearn(
            task,
            removal.params,
            sets,
            options.row,
            run=run,
            indices=None if run is None else removal.indices,
            origin=options.model,
            on_step=on_step,
            before=before,
            **settings,
            **own,
        )
    if outcome.task is not None:
        losses = losses_of_sets(outcome.task, sets)
    after = {name: getattr(losses, name)(outcome.params) for name in parts}
    sought = settings.get("target")
    sentence = explanation(outcome, sought, before["retain"], vars(options))
    sentences = [sentence]
    if sought is not None:
        sentences = [f"Target {target.loss:.4f} ({target.meaning}). {sentence}"]
    warning = warning_of(outcome, after["retain"] - before["retain"])
    if warning is not None:
        sentences.append(f"Warning: {warning}")
    if outcome.task is not None:
        sentences.append(
            "The weights are as they were: this method suppresses at inference. Its "
            "folder holds them, and those of a model that knows the forgotten better: "
            "keep it like the training data."
        )
    origin = None if run is None else run_hash(run)
    told = {
        "layers": settings.get("layers", row.layers),
        "limits": settings["limits"]._asdict() if "limits" in settings else None,
        "target": None
        if sought is None
        else {"forget_loss": target.loss, "meaning": target.meaning},
        "status": outcome.status,
        "explanation": sentence,
        "warning": warning,
        "removes": row.removes,
        "scale": outcome.scale,
        "steps": outcome.steps,
        "trials": [trial._asdict() for trial in outcome.trials],
        "losses": {"before": before, "after": after},
        "changed": changed_leaves(removal.params, outcome.params),
        "model": {"run_sha256": origin, "params_sha256": params_hash(removal.params)},
        "result": {"run_sha256": origin, "params_sha256": params_hash(outcome.params)},
        "seconds": outcome.cost.seconds if outcome.cost else None,
        "cost": outcome.cost._asdict() if outcome.cost else None,
        "details": dict(outcome.details),
        "versions": versions(),
    }
    return Work(outcome, loss_rows(outcome, sought, before, after), sentences, told)
