"""``jaxunlearn unlearn``: take examples out of a trained model."""

import dataclasses
import time
from pathlib import Path

import numpy as np

from jaxunlearn.commands.console import console, progress_bar
from jaxunlearn.commands.removal import (
    Options,
    Removal,
    forget_target,
    limits_of,
    prepare,
    show_matches,
)
from jaxunlearn.data import collate, pad_token_id
from jaxunlearn.files import write_json
from jaxunlearn.provenance import data_hash, versions
from jaxunlearn.report import console_table


def unlearn(options: Options) -> int:
    """Remove the influence of training examples from a model.

    Name what to forget by --forget (a file of records), --request (words, such as
    'everything about Mara Velkin') or --ids (positions in the training data). The
    forget loss is raised to --target and no further, while the loss on --retain is
    watched. Writes a Hugging Face directory and unlearning.json.
    """
    options.check()
    removal = prepare(options)
    show_matches(removal)
    if options.list_matches:
        return 0
    return carry_out(removal, options, limits_of(options))


def carry_out(removal: Removal, options: Options, limits) -> int:
    """Unlearn, measure, write; return the exit status."""
    from jaxunlearn import tree
    from jaxunlearn.models import save_pretrained
    from jaxunlearn.training import mean_loss_of
    from jaxunlearn.unlearning import changed_leaves, explain

    out = Path(options.out)
    settings = {
        "pad_id": pad_token_id(removal.tokenizer),
        "batch_size": options.batch_size,
    }
    sets = {"forget": removal.forget, "retain": removal.retain}
    if removal.unseen is not None:
        sets["unseen"] = removal.unseen
    losses = {k: mean_loss_of(removal.model, v, **settings) for k, v in sets.items()}
    before = {name: loss(removal.params) for name, loss in losses.items()}
    target, meaning = forget_target(removal, options, before["forget"])
    layers = options.layers
    if layers is None:
        layers = "^wte/" if options.method == "first_epoch" else "."
    mask = tree.select(removal.params, layers)
    run_method = first_epoch_of if options.method == "first_epoch" else ascent_of
    started = time.perf_counter()
    outcome = run_method(removal, options, mask, losses, target, limits)
    seconds = time.perf_counter() - started
    after = {name: loss(outcome.params) for name, loss in losses.items()}
    rows = [
        {"records": name, "before": before[name], "after": after[name]} for name in sets
    ]
    console.print(console_table(rows, title="Mean loss (nats a token)"))
    sentence = explain(outcome, target, before["retain"])
    console.print(f"Target {target:.4f} ({meaning}). {sentence}")
    write_json(
        out / "unlearning.json",
        {
            "request": options.request or options.forget or list(options.ids),
            "matched": [m._asdict() for m in removal.matches],
            "forget_sha256": data_hash(removal.forget_records),
            "data_sha256": None
            if removal.run is None
            else data_hash(removal.run.records),
            "options": {
                name: str(value) if isinstance(value, Path) else value
                for name, value in dataclasses.asdict(options).items()
            },
            "layers": layers,
            "limits": limits._asdict(),
            "target": {"forget_loss": target, "meaning": meaning},
            "status": outcome.status,
            "explanation": sentence,
            "scale": outcome.scale,
            "trials": [t._asdict() for t in outcome.trials],
            "losses": {"before": before, "after": after},
            "changed": changed_leaves(removal.params, outcome.params),
            "seconds": seconds,
            "versions": versions(),
        },
    )
    if not outcome.reached and outcome.status != "given_scale":
        console.print(f"No model was written. Details: {out / 'unlearning.json'}")
        return 1
    words, source = removal.tokenizer, options.model
    save_pretrained(removal.model, outcome.params, out, words, source=source)
    console.print(f"Model and unlearning.json: {out}")
    return 0


def first_epoch_of(removal, options, mask, losses, target, limits):
    """Replay the run for the examples' gradients and add them back."""
    from jaxunlearn import training
    from jaxunlearn.unlearning import first_epoch

    indices = sorted(m.index for m in removal.matches)
    if options.mode == "iterative":
        return iterative_of(removal, options, mask, losses, target, limits)
    run = removal.run
    last = training.last_exposure(run.recipe, run.data, indices, options.epochs)
    with progress_bar("Replaying the training run", last + 1) as update:
        gradient, _ = training.replayed_gradient(
            run.model,
            run.recipe,
            run.data,
            run.start,
            indices,
            pad_id=run.pad_id,
            epochs=options.epochs,
            weight=options.weight,
            on_step=lambda step: update(step + 1),
        )
    with console.status("Calibrating the scale"):
        return first_epoch(
            removal.params,
            gradient,
            mask=mask,
            part=options.part,
            forget_loss=losses["forget"],
            retain_loss=losses["retain"],
            target=target,
            limits=limits,
            scale=options.scale,
        )


def iterative_of(removal, options, mask, losses, target, limits):
    """Replay, keep each example's own gradient, and unlearn one by one."""
    from jaxunlearn import training, tree
    from jaxunlearn.training.losses import example_losses
    from jaxunlearn.training.replay import compiled_gradient
    from jaxunlearn.unlearning import ascent_direction, iterative_first_epoch

    run, pad = removal.run, pad_token_id(removal.tokenizer)
    indices = sorted(m.index for m in removal.matches)
    last = training.last_exposure(run.recipe, run.data, indices, options.epochs)
    with progress_bar("Replaying the training run", last + 1) as update:
        directions = {
            index: ascent_direction(gradient, mask, options.part)
            for index, gradient in training.replayed_gradients(
                run.model,
                run.recipe,
                run.data,
                run.start,
                indices,
                pad_id=pad,
                epochs=options.epochs,
                weight=options.weight,
                on_step=lambda step: update(step + 1),
            ).items()
        }

    def fresh(params, index):
        one = collate(
            run.data, [index], batch_size=1, length=run.data.length, pad_id=pad
        )
        gradient = compiled_gradient(run.model)(params, one, np.ones(1, np.float32))
        return ascent_direction(gradient, mask, options.part)

    return iterative_first_epoch(
        removal.params,
        recorded_direction=directions.__getitem__,
        fresh_direction=fresh,
        examples=indices,
        example_losses=lambda params: example_losses(
            run.model, params, removal.forget, pad_id=pad
        ),
        retain_loss=losses["retain"],
        target=target,
        layer_norm=float(tree.norm(removal.params, mask)),
        limits=limits,
        max_exposures=options.max_exposures,
    )


def ascent_of(removal, options, mask, losses, target, limits):
    """Climb the loss of the examples to forget."""
    from jaxunlearn.training import mean_gradient_of
    from jaxunlearn.unlearning import gradient_ascent

    gradient = mean_gradient_of(
        removal.model,
        removal.forget,
        pad_id=pad_token_id(removal.tokenizer),
        batch_size=options.batch_size,
    )
    with console.status("Gradient ascent") as status:
        return gradient_ascent(
            removal.params,
            gradient=gradient,
            mask=mask,
            forget_loss=losses["forget"],
            retain_loss=losses["retain"],
            target=target,
            limits=limits,
            learning_rate=options.learning_rate,
            max_steps=options.max_steps,
            on_step=lambda t: status.update(
                f"Gradient ascent: forget loss {t.forget:.3f} of {target:.3f}"
            ),
        )
