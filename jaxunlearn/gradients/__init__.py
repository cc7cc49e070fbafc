"""Derivatives of a per-example loss: gradients, curvature, inverses, projections."""

from jaxunlearn.gradients.backward import Taps, layer_taps
from jaxunlearn.gradients.curvature import gauss_newton_vp, hvp
from jaxunlearn.gradients.outer_products import OuterProducts
from jaxunlearn.gradients.per_example import (
    fisher_diagonal,
    per_example_gradients,
    per_example_loss,
    per_example_norms,
)
from jaxunlearn.gradients.products import (
    directional_scores,
    gradient_products,
    products_with,
    token_contributions,
)

__all__ = [
    "OuterProducts",
    "Taps",
    "directional_scores",
    "fisher_diagonal",
    "gauss_newton_vp",
    "gradient_products",
    "hvp",
    "layer_taps",
    "per_example_gradients",
    "per_example_loss",
    "per_example_norms",
    "products_with",
    "token_contributions",
]
