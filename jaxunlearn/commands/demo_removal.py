"""The demo's removal: each method to the same forget loss."""

from jaxunlearn import training
from jaxunlearn.commands.console import progress_bar, working
from jaxunlearn.commands.demo_measures import measures, timed
from jaxunlearn.commands.demo_story import Story
from jaxunlearn.data import in_order
from jaxunlearn.models import save_pretrained
from jaxunlearn.unlearning.comparison import FIRST_EPOCH, TIED, Comparison, compare


def remove(story: Story, seconds: dict) -> Comparison:
    """Unlearn by each method to the same forget loss."""
    run = story.run
    losses = measures(run.model, story.sets)
    indices = sorted(m.index for m in story.matches)
    last = training.last_exposure(run.recipe, run.data, indices)
    with (
        timed(seconds, "replaying"),
        progress_bar("Replay the first epoch", last + 1) as update,
    ):
        gradient, _ = training.replayed_gradient(
            run.model,
            run.recipe,
            run.data,
            story.base,
            indices,
            weight="unit",
            on_step=lambda step: update(step + 1),
        )
    with working("Unlearning") as update:
        comparison = compare(
            story.trained,
            gradient,
            mean_gradient=training.mean_gradient_of(
                run.model.per_example_loss, in_order(story.sets["forget"])
            ),
            forget_loss=losses["forget"],
            retain_loss=losses["retain"],
            # Who was never seen shows what not knowing looks like to this very model.
            target=losses["unseen"](story.trained),
            on_method=lambda name: update(f"Unlearning: {name}"),
        )
    # A gradient is taken once, and each first-epoch method would have to take it.
    taking = seconds.pop("replaying")
    seconds |= {
        method: value + (taking if method in (FIRST_EPOCH, TIED) else 0.0)
        for method, value in comparison.seconds.items()
    }
    unlearned = comparison.outcomes[FIRST_EPOCH].params
    directory = run.directory.parent / "models/unlearned"
    save_pretrained(run.model, unlearned, directory, run.tokenizer)
    return comparison
