"""Influence of training examples on a model's losses: scores, an index, and the truth.

``scores(loss, params, train, query, method=...)`` is the one entry point; ``track`` has
the same scores at every checkpoint of a training run.
"""

from jaxunlearn.gradients.projections.rows import (
    gradient_row_layout,
    projected_gradients,
)
from jaxunlearn.influence.index.build import build_index
from jaxunlearn.influence.index.description import open_index
from jaxunlearn.influence.index.fisher import damped_inverse, projected_fisher
from jaxunlearn.influence.index.query import all_scores, top_k
from jaxunlearn.influence.methods.activations import activation_scores
from jaxunlearn.influence.methods.table import METHODS, method_name
from jaxunlearn.influence.methods.unrolled import unrolled_influence
from jaxunlearn.influence.options import DIRECTED, RESUMABLE, goes_with
from jaxunlearn.influence.planner.planning import plan
from jaxunlearn.influence.planner.table import Plan
from jaxunlearn.influence.ranking import extremes, token_shares
from jaxunlearn.influence.result import InfluenceScores, load_scores, save_scores
from jaxunlearn.influence.scoring import scores
from jaxunlearn.influence.tracking.files import (
    InfluenceTrack,
    load_track,
    save_track,
)
from jaxunlearn.influence.tracking.request import TRACKED
from jaxunlearn.influence.tracking.series import track, tracked_during
from jaxunlearn.influence.truth.validation import (
    leave_one_out,
    linear_datamodelling_score,
    rank_correlation,
)
from jaxunlearn.influence.work import Checkpoint, TrainingRun

__all__ = [
    "DIRECTED",
    "METHODS",
    "RESUMABLE",
    "TRACKED",
    "Checkpoint",
    "InfluenceScores",
    "InfluenceTrack",
    "Plan",
    "TrainingRun",
    "activation_scores",
    "all_scores",
    "build_index",
    "damped_inverse",
    "goes_with",
    "extremes",
    "gradient_row_layout",
    "leave_one_out",
    "linear_datamodelling_score",
    "load_scores",
    "load_track",
    "method_name",
    "open_index",
    "plan",
    "projected_fisher",
    "projected_gradients",
    "rank_correlation",
    "save_scores",
    "save_track",
    "scores",
    "token_shares",
    "top_k",
    "track",
    "tracked_during",
    "unrolled_influence",
]
