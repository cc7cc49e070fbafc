"""What ``jaxunlearn train`` says of a run beside its losses."""

import shlex
from pathlib import Path

from jaxunlearn.training import Recipe, Run, gradient_store
from jaxunlearn.training.recipe import training_bytes
from jaxunlearn.tree import bytes_of
from jaxunlearn.types import Params


def recording_note(run: Run) -> str:
    """Return what the gradient store holds, with a warning of norm spikes."""
    found = gradient_store.summary(run.directory / "gradients")
    note = (
        f"Recorded {found['gradients']} gradients in {found['bytes'] / 1e6:.1f} MB; "
        f"largest truncation error {found['largest_truncation']:.2%}."
    )
    if found["norm_spikes"]:
        note += (
            f"\nWarning: the gradients of examples {found['norm_spikes'][:10]} are "
            f"over 5 times the median norm: such spikes undo more than their example."
        )
    return note


def wider_than_stored(recipe: Recipe, params: Params) -> str | None:
    """Return what training a 16-bit checkpoint holds in memory; None for float32."""
    from jaxunlearn.models.tying import token_table

    stored = token_table(params).dtype
    held = {k: f"{x / 1e6:.1f} MB" for k, x in training_bytes(recipe, params).items()}
    if stored.itemsize >= 4:
        return None
    return (
        f"The weights are stored in {stored} ({bytes_of(params) / 1e6:.1f} MB) and "
        f"trained in float32: {held['weights']} of weights, {held['gradients']} of "
        f"gradients, {held['optimizer']} of optimiser state. OUT/model is {stored}."
    )


def next_command(out: Path) -> str:
    """Return the command that unlearns from a run."""
    run, model = (shlex.quote(str(path)) for path in (out, out / "model"))
    return (
        f"jaxunlearn unlearn --method first_epoch --run {run} --model {model} "
        f"--request 'everything about NAME' --retain FILE --out DIR"
    )
