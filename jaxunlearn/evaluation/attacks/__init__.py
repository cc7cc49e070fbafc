"""Attacks that try to bring forgotten data back, and what they recover."""

from jaxunlearn.evaluation.attacks.contexts import in_context, with_context
from jaxunlearn.evaluation.attacks.embedding_shift import soft_prompt
from jaxunlearn.evaluation.attacks.inputs import Settings
from jaxunlearn.evaluation.attacks.measures import measure_of, probability
from jaxunlearn.evaluation.attacks.precision import (
    Quantized,
    quantization,
    quantized,
)
from jaxunlearn.evaluation.attacks.probes import (
    LogitLens,
    auc_values,
    logit_lens,
    membership_probe,
    ridge_probe,
)
from jaxunlearn.evaluation.attacks.prompts import (
    PREFIXES,
    best_prompt,
    paraphrased,
    prefixed,
    prepended,
)
from jaxunlearn.evaluation.attacks.recovered import (
    Point,
    Recovered,
    Recovery,
    curve,
    largest_mean,
    recovery,
)
from jaxunlearn.evaluation.attacks.relearned import halves, relearning
from jaxunlearn.evaluation.attacks.samples import branching, expected_best, sampling

__all__ = [
    "PREFIXES",
    "LogitLens",
    "Point",
    "Quantized",
    "Recovered",
    "Recovery",
    "Settings",
    "auc_values",
    "best_prompt",
    "branching",
    "curve",
    "expected_best",
    "halves",
    "in_context",
    "largest_mean",
    "logit_lens",
    "measure_of",
    "membership_probe",
    "paraphrased",
    "prefixed",
    "prepended",
    "probability",
    "quantization",
    "quantized",
    "recovery",
    "relearning",
    "ridge_probe",
    "sampling",
    "soft_prompt",
    "with_context",
]
