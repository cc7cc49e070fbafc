"""What is measured of models wherever on a way they stand, once each."""

import numpy as np

from experiments.paper.laboratory import Lab
from experiments.paper.matched import (
    extraction,
    finite,
    forget_losses,
    relearned,
    retain_losses,
    unseen_losses,
)
from jaxunlearn.evaluation.membership.roc import auc
from jaxunlearn.types import Params

RELEARNING = (0, 1, 2, 4, 8)  # steps at which the half not taught is looked at


def losses(lab: Lab, params: Params) -> dict[str, np.ndarray]:
    """Return mean ``forget`` and ``retain`` losses, and ``losses``, all of them.

    The means are float64[seeds], ``losses`` is float64[seeds, forget + kept].
    """
    forget, retain = forget_losses(lab, params), retain_losses(lab, params)
    found = {
        "forget": forget.mean(axis=1),
        "retain": retain.mean(axis=1),
        "losses": np.concatenate([forget, retain], axis=1),
    }
    return {name: np.asarray(x, np.float64) for name, x in found.items()}


def point(lab: Lab, params: Params) -> dict[str, np.ndarray]:
    """Return the measures of models that need no other model, float64[seeds] each.

    Those of :func:`losses`; ``unseen``, ``membership`` and ``extraction`` as in
    ``matched.measured``; ``relearned``: the lowest loss that one half of the forgotten
    examples comes to while the other half is taught.
    """
    found = losses(lab, params)
    unseen = unseen_losses(lab, params)
    forget = found["losses"][:, : lab.sets.forget.shape[1]]
    held_out = relearned(lab, params, steps=RELEARNING)["held_out"]
    more = {
        "unseen": unseen.mean(axis=1),
        "membership": [
            auc(f, u) for f, u in zip(finite(forget), finite(unseen), strict=True)
        ],
        "extraction": extraction(lab, params),
        "relearned": held_out.min(axis=0),
    }
    return found | {name: np.asarray(x, np.float64) for name, x in more.items()}
