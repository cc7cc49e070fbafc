"""Can it be told who was in the training data: attack scores and how they separate."""

from jaxunlearn.evaluation.membership.signals import (
    gradient_norm,
    loss,
    min_k,
    min_k_plus_plus,
    reference,
    zlib,
)

__all__ = ["gradient_norm", "loss", "min_k", "min_k_plus_plus", "reference", "zlib"]
