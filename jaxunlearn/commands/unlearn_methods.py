"""How ``jaxunlearn unlearn`` carries out each method, with its progress shown.

Each function takes (removal, options, layers, losses, target, limits) and returns the
method's outcome.
"""

import numpy as np

from jaxunlearn.commands.console import progress_bar, working
from jaxunlearn.data import collate, in_order


def first_epoch_of(removal, options, layers, losses, target, limits):
    """Replay the run for the examples' gradients and add them back."""
    from jaxunlearn import training
    from jaxunlearn.unlearning import first_epoch

    run, indices = removal.run, removal.indices
    last = training.last_exposure(
        run.recipe, run.data, indices, options.of_way("epochs")
    )
    with progress_bar("Replaying the training run", last + 1) as update:
        gradient, _ = training.replayed_gradient(
            run.model,
            run.recipe,
            run.data,
            run.start,
            indices,
            epochs=options.of_way("epochs"),
            weight=options.of_way("weight"),
            on_step=lambda step: update(step + 1),
        )
    with working("Calibrating the scale"):
        return first_epoch(
            removal.params,
            gradient,
            layers=layers,
            part=options.of_way("part"),
            forget_loss=losses["forget"],
            retain_loss=losses["retain"],
            target=target,
            limits=limits,
            scale=options.scale,
        )


def iterative_of(removal, options, layers, losses, target, limits):
    """Replay, keep each example's own gradient, and unlearn one by one."""
    from jaxunlearn import training, tree
    from jaxunlearn.training.losses import example_losses
    from jaxunlearn.training.replay import compiled_gradient
    from jaxunlearn.unlearning import ascent_direction, iterative_first_epoch

    run, mask = removal.run, tree.select(removal.params, layers)
    indices, part = removal.indices, options.of_way("part")
    last = training.last_exposure(
        run.recipe, run.data, indices, options.of_way("epochs")
    )
    with progress_bar("Replaying the training run", last + 1) as update:
        directions = {
            index: ascent_direction(gradient, mask, part)
            for index, gradient in training.replayed_gradients(
                run.model,
                run.recipe,
                run.data,
                run.start,
                indices,
                epochs=options.of_way("epochs"),
                weight=options.of_way("weight"),
                on_step=lambda step: update(step + 1),
            ).items()
        }

    def fresh(params, index):
        one = collate(run.data, [index], batch_size=1, length=run.data.length)
        gradient = compiled_gradient(run.model, params, one, np.ones(1, np.float32))
        return ascent_direction(gradient, mask, part)

    return iterative_first_epoch(
        removal.params,
        recorded_direction=directions.__getitem__,
        fresh_direction=fresh,
        examples=indices,
        example_losses=lambda params: example_losses(
            run.model.per_example_loss, params, in_order(removal.forget)
        ),
        retain_loss=losses["retain"],
        target=target,
        layer_norm=float(tree.norm(removal.params, mask)),
        limits=limits,
        max_exposures=options.of_way("max_exposures"),
    )


def ascent_of(removal, options, layers, losses, target, limits):
    """Climb the loss of the examples to forget."""
    from jaxunlearn.training import mean_gradient_of
    from jaxunlearn.unlearning import gradient_ascent

    gradient = mean_gradient_of(
        removal.model.per_example_loss,
        in_order(removal.forget, batch_size=options.batch_size),
    )
    with working("Gradient ascent") as update:
        return gradient_ascent(
            removal.params,
            gradient=gradient,
            layers=layers,
            forget_loss=losses["forget"],
            retain_loss=losses["retain"],
            target=target,
            limits=limits,
            learning_rate=options.learning_rate,
            max_steps=options.of_way("max_steps"),
            on_step=lambda t: update(
                f"Gradient ascent: forget loss {t.forget:.3f} of {target:.3f}"
            ),
        )


METHODS = {
    ("first_epoch", "oneshot"): first_epoch_of,
    ("first_epoch", "iterative"): iterative_of,
    ("gradient_ascent", None): ascent_of,
}
"""By method and mode, as in ``unlearn_options.READS``."""
