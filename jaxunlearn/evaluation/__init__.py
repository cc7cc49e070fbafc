"""What a model still knows, what it lost, and how it stands beside retrained ones.

Names are imported when first used. ``attacks`` is a room within the room;
``membership``, ``muse``, ``classification`` and ``aggregates`` hold functions under
short names and are used as modules, and so are those whose function has their name.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "TokenStatistics": "token_statistics",
    "mean_losses": "token_statistics",
    "Interval": "intervals",
    "bootstrap": "intervals",
    "paired_bootstrap": "intervals",
    "mean_interval": "intervals",
    "rouge_l": "rouge",
    "probability": "utility",
    "normalised_probability": "utility",
    "truth_ratio": "utility",
    "closeness_to_one": "utility",
    "preference_for_truth": "utility",
    "share_of_truth": "utility",
    "forget_quality": "utility",
    "ForgetQuality": "utility",
    "harmonic_mean": "utility",
    "model_utility": "utility",
    "AnswerLog": "answer_log",
    "Scores": "answer_log",
    "answer_scores": "answer_log",
    "read_logs": "logs",
    "write_open_unlearning": "logs",
    "Measured": "suite",
    "Settings": "suite",
    "measure": "suite",
    "SuiteScores": "suite_scores",
    "exact_memorization": "memorization",
    "extraction_strength": "memorization",
    "memorization_accuracy": "memorization",
    "extraction_likelihoods": "memorization",
    "perplexity": "memorization",
    "auc": "separation",
    "roc_curve": "separation",
    "tpr_at_fpr": "separation",
    "privleak": "separation",
    "s_mia": "separation",
    "against_reference": "separation",
    "linear_cka": "representations",
    "layer_cka": "representations",
    "example_features": "representations",
    "linear_probe": "probes",
    "nearest_neighbour_accuracy": "probes",
    "unlearning_depth": "depth",
    "layer_gaps": "depth",
    "depth_score": "depth",
    "parameter_distance": "parameters",
    "linear_path": "parameters",
    "calibrated_mix": "parameters",
    "concept_vector": "concepts",
    "concept_change": "concepts",
    "known_facts": "facts",
    "Fact": "restoration",
    "knowledge": "restoration",
    "TrainingParts": "retraining",
    "retrain": "retraining",
    "language_model_margin": "margins",
    "classification_margin": "margins",
    "klom": "ensembles",
    "u_lira": "ensembles",
    "noise_floor": "ensembles",
    "forgetting_quality": "epsilon",
    "retrained_distance": "distance",
}
_MODULES = (
    "suite_scores",
    "restoration",
    "answers",
    "epsilon",
    "separation",
    "token_statistics",
    "aggregates",
    "attacks",
    "classification",
    "membership",
    "muse",
)
__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
