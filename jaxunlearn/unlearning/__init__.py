"""Removing the influence of chosen training examples from a trained model."""

from jaxunlearn.unlearning.calibration import calibrate
from jaxunlearn.unlearning.change import changed_leaves
from jaxunlearn.unlearning.edits.ascent import gradient_ascent
from jaxunlearn.unlearning.edits.one_by_one import iterative_first_epoch
from jaxunlearn.unlearning.edits.recorded import ascent_direction, first_epoch
from jaxunlearn.unlearning.edits.rounds import (
    UnlearningPath,
    iterative_unlearning,
    recorded_then_fresh,
)
from jaxunlearn.unlearning.escalation import Escalation, Verdict, escalate
from jaxunlearn.unlearning.exact.replay import (
    ExactResult,
    exact_replay,
    replay_plan,
    verify_proof,
)
from jaxunlearn.unlearning.exact.schedule import expected_replayed_share
from jaxunlearn.unlearning.exact.undo import PastState, undo_steps
from jaxunlearn.unlearning.explanation import explain
from jaxunlearn.unlearning.false_stops import FalseStop, false_stop
from jaxunlearn.unlearning.forms import Direction, Losses, Method, Objective, Sets
from jaxunlearn.unlearning.limits import Limits
from jaxunlearn.unlearning.methods import METHODS
from jaxunlearn.unlearning.outcome import (
    Cost,
    Outcome,
    PathPoint,
    Status,
    Trial,
)
from jaxunlearn.unlearning.runner import unlearn
from jaxunlearn.unlearning.stopping import (
    Rule,
    Stop,
    all_of,
    any_of,
    exposure_limit,
    exposures,
    first_stop,
    held,
    history_of,
    membership_at_chance,
    no_progress,
    retain_limit,
    score_below,
    target_reached,
)
from jaxunlearn.unlearning.wrappers.decoders import offset_decoder
from jaxunlearn.unlearning.wrappers.offset import whp
from jaxunlearn.unlearning.wrappers.saving import load_wrapper, save_wrapper

__all__ = [
    "Cost",
    "Direction",
    "Escalation",
    "ExactResult",
    "FalseStop",
    "Limits",
    "Losses",
    "METHODS",
    "Method",
    "Objective",
    "Outcome",
    "PastState",
    "PathPoint",
    "Rule",
    "Sets",
    "Status",
    "Stop",
    "Trial",
    "UnlearningPath",
    "Verdict",
    "all_of",
    "any_of",
    "ascent_direction",
    "calibrate",
    "changed_leaves",
    "escalate",
    "exact_replay",
    "expected_replayed_share",
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
    "load_wrapper",
    "membership_at_chance",
    "no_progress",
    "offset_decoder",
    "recorded_then_fresh",
    "replay_plan",
    "retain_limit",
    "save_wrapper",
    "score_below",
    "target_reached",
    "undo_steps",
    "unlearn",
    "verify_proof",
    "whp",
]
