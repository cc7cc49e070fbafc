"""Removing the influence of chosen training examples from a trained model."""

from jaxunlearn.unlearning.calibration import Limits, Outcome, Trial, calibrate, explain
from jaxunlearn.unlearning.change import changed_leaves
from jaxunlearn.unlearning.first_epoch import ascent_direction, first_epoch
from jaxunlearn.unlearning.gradient_ascent import gradient_ascent
from jaxunlearn.unlearning.iterative import (
    Path,
    iterative_first_epoch,
    iterative_unlearning,
    recorded_then_fresh,
)
from jaxunlearn.unlearning.path import (
    PathPoint,
    Rule,
    Stop,
    exposures,
    first_stop,
    history_of,
)
from jaxunlearn.unlearning.stopping import (
    FalseStop,
    all_of,
    any_of,
    exposure_limit,
    false_stop,
    held,
    membership_at_chance,
    no_progress,
    retain_limit,
    score_below,
    target_reached,
)

__all__ = [
    "FalseStop",
    "Limits",
    "Outcome",
    "Path",
    "PathPoint",
    "Rule",
    "Stop",
    "Trial",
    "all_of",
    "any_of",
    "ascent_direction",
    "calibrate",
    "changed_leaves",
    "explain",
    "exposure_limit",
    "exposures",
    "false_stop",
    "first_epoch",
    "first_stop",
    "gradient_ascent",
    "held",
    "history_of",
    "iterative_first_epoch",
    "iterative_unlearning",
    "membership_at_chance",
    "no_progress",
    "recorded_then_fresh",
    "retain_limit",
    "score_below",
    "target_reached",
]
