"""``jaxunlearn unlearn``: take examples out of a trained model."""

import time
from pathlib import Path
from typing import Any

from jaxunlearn.commands.console import console, say
from jaxunlearn.commands.removal import (
    Removal,
    find,
    forget_target,
    prepare,
    run_hash,
    show_matches,
)
from jaxunlearn.commands.unlearn_methods import METHODS
from jaxunlearn.commands.unlearn_options import Options, check, limits_of
from jaxunlearn.commands.unlearn_result import (
    check_places,
    described,
    keep_texts,
    refusal_of,
    secrets,
    telling,
    write_result,
)
from jaxunlearn.data import in_order
from jaxunlearn.files import write_json
from jaxunlearn.locks import locked
from jaxunlearn.provenance import params_hash, versions
from jaxunlearn.report import console_table
from jaxunlearn.report.run.model_card import model_card


def unlearn(options: Options) -> int:
    """Remove the influence of training examples from a model.

    Name what to forget by --forget (a file of records), --request (words, such as
    'everything about Mara Velkin') or --ids (positions in the training data). The
    forget loss is raised to --target and no further, while the loss on --retain is
    watched. Writes a Hugging Face directory with unlearning.json and a model card,
    which hold hashes and positions of what was forgotten, not its texts. Where a limit
    is passed no model is written, and OUT.refused.json says why.

    --config unlearning.json takes the options of an earlier run; those given beside it
    replace them.
    """
    check(options)
    if not options.list_matches:
        check_places(options)
    found = find(options)
    show_matches(found, full=options.list_matches)
    if options.list_matches:
        return 0
    out = Path(options.out).resolve()  # a link is followed, not replaced
    with locked(out):
        return carry_out(prepare(options, found), options, out)


def carry_out(removal: Removal, options: Options, out: Path) -> int:
    """Unlearn, measure, write; return the exit status."""
    from jaxunlearn import tree
    from jaxunlearn.training import mean_loss_of
    from jaxunlearn.unlearning import changed_leaves, explain

    sets = {"forget": removal.forget, "retain": removal.retain}
    if removal.unseen is not None:
        sets["unseen"] = removal.unseen
    losses = {
        name: mean_loss_of(
            removal.model.per_example_loss,
            in_order(data, batch_size=options.batch_size),
        )
        for name, data in sets.items()
    }
    before = {name: loss(removal.params) for name, loss in losses.items()}
    target, meaning = forget_target(removal, options, before["forget"])
    limits = limits_of(options)
    layers = options.layers
    if layers is None:
        layers = "^wte/" if options.method == "first_epoch" else "."
    mask = tree.select(removal.params, layers)
    check_part(options, mask, layers)
    started = time.perf_counter()
    outcome = METHODS[options.way](removal, options, layers, losses, target, limits)
    seconds = time.perf_counter() - started
    after = {name: loss(outcome.params) for name, loss in losses.items()}
    rows = [
        {"records": name, "before": before[name], "after": after[name]} for name in sets
    ]
    console.print(console_table(rows, title="Mean loss (nats a token)"))
    sentence = explain(outcome, target, before["retain"])
    say(f"Target {target:.4f} ({meaning}). {sentence}")
    warning = price_warning(after["retain"] - before["retain"])
    if warning is not None:
        say(f"Warning: {warning}")
    run = None if removal.run is None else run_hash(removal.run)
    told = described(removal, options) | {
        "layers": layers,
        "limits": limits._asdict(),
        "target": {"forget_loss": target, "meaning": meaning},
        "status": outcome.status,
        "explanation": sentence,
        "warning": warning,
        "scale": outcome.scale,
        "trials": [t._asdict() for t in outcome.trials],
        "losses": {"before": before, "after": after},
        "changed": changed_leaves(removal.params, outcome.params),
        "model": {"run_sha256": run, "params_sha256": params_hash(removal.params)},
        "result": {"run_sha256": run, "params_sha256": params_hash(outcome.params)},
        "seconds": seconds,
        "versions": versions(),
    }
    if options.keep_texts is not None:
        keep_texts(options.keep_texts, removal.found)
        say(f"The forgotten records: {options.keep_texts}")
    if not outcome.reached:
        write_json(refusal_of(out), told)
        say(f"No model was written. Details: {refusal_of(out)}")
        return 1
    save(removal, options, outcome.params, told, out)
    say(f"Model, unlearning.json and model card: {out}")
    return 0


def check_part(options: Options, mask: Any, layers: str) -> None:
    """Refuse a part of the embedding where the embedding is not to change."""
    from jaxunlearn.models.tying import token_table

    if options.part is not None and not bool(token_table(mask).any()):
        raise ValueError(
            f"part={options.part} has no effect with layers={layers}, which leave the "
            f"embedding as it is: leave it out, or choose layers with wte"
        )


def price_warning(rise: float) -> str | None:
    """Return a warning where retain loss rose past the default limit."""
    from jaxunlearn.unlearning import Limits

    usual = Limits().max_retain_nats
    if usual is None or rise <= usual:
        return None
    return (
        f"Retain loss rose by {rise:.3f} nats a token, past the {usual} that are "
        f"allowed where no other limit is given: the model is worse on what it keeps."
    )


def save(
    removal: Removal, options: Options, params: Any, told: dict, out: Path
) -> None:
    """Write the folder of the result, and tell what was left out of it."""
    from jaxunlearn.models import save_pretrained
    from jaxunlearn.models.checkpoints.huggingface import local_directory

    source = local_directory(options.model)
    named = None if Path(options.model).exists() else options.model
    dropped = write_result(
        out,
        told,
        model_card(told, source=front_matter(source) | {"base_model": named}),
        lambda folder: save_pretrained(
            removal.model, params, folder, removal.tokenizer, source=source
        ),
        forbidden=secrets(options, removal),
        names=telling(options, removal),
        overwrite=options.overwrite,
    )
    if dropped:
        say(
            f"Left out of the model's folder, since they say what was to be forgotten: "
            f"{', '.join(dropped)}"
        )


def front_matter(directory: Path) -> dict:
    """Return the front matter of a model's card; empty where there is none."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    path = directory / "README.md"
    if not path.exists():
        return {}
    try:
        found = metadata_load(path)
    except (ValueError, YAMLError) as error:
        say(f"{path} has no front matter that can be read ({type(error).__name__}).")
        return {}
    return found if isinstance(found, dict) else {}
