"""Derivatives of a per-example loss: gradients, curvature, inverses, projections."""

from jaxunlearn.gradients.curvature_products import gauss_newton_vp, hvp
from jaxunlearn.gradients.difficulty import el2n, grand
from jaxunlearn.gradients.fisher import fisher_vp, sampled_labels, true_fisher_vp
from jaxunlearn.gradients.forward_mode import directional_scores
from jaxunlearn.gradients.gradient_inner_products import (
    gradient_products,
    leaf_products,
    products_with,
    token_contributions,
)
from jaxunlearn.gradients.hutchinson import hutchinson_diagonal, hutchinson_trace
from jaxunlearn.gradients.kronecker.files import load_factors, save_factors
from jaxunlearn.gradients.kronecker.fit import KroneckerFactors, fit_ekfac, fit_kfac
from jaxunlearn.gradients.kronecker.inverse import (
    Damping,
    kronecker_inverse_vp,
    kronecker_vp,
)
from jaxunlearn.gradients.per_example import (
    fisher_diagonal,
    per_example_gradients,
    per_example_loss,
    per_example_norms,
)
from jaxunlearn.gradients.projections.projection import Projection, project
from jaxunlearn.gradients.taps.outer_products import OuterProducts
from jaxunlearn.gradients.taps.statistics import Taps, layer_taps

__all__ = [
    "Damping",
    "KroneckerFactors",
    "OuterProducts",
    "Projection",
    "Taps",
    "directional_scores",
    "el2n",
    "fisher_diagonal",
    "fisher_vp",
    "fit_ekfac",
    "fit_kfac",
    "gauss_newton_vp",
    "gradient_products",
    "grand",
    "hutchinson_diagonal",
    "hutchinson_trace",
    "hvp",
    "kronecker_inverse_vp",
    "kronecker_vp",
    "layer_taps",
    "leaf_products",
    "load_factors",
    "per_example_gradients",
    "per_example_loss",
    "per_example_norms",
    "products_with",
    "project",
    "sampled_labels",
    "save_factors",
    "token_contributions",
    "true_fisher_vp",
]
