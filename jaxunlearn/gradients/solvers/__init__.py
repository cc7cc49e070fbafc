"""Solvers of ``(A + damping I) x = b`` on parameter trees, A a curvature.

All take the right side as a tree, sum in float32 and return a :class:`Solution`: value,
status, residual, iterations and the damping in effect. Compile them by ``jax.jit``,
solve for many right sides by ``jax.vmap``. To solve on chosen parameters only, give a
right side that is zero elsewhere and a map restricted to them (``layers=`` of the
products, or :func:`~jaxunlearn.gradients.curvature_products.restricted`).

==================== ============================ ===================================
solver               knows A by                   use it
==================== ============================ ===================================
cg                   products                     exact answers, positive A + damping
lissa                products                     as published code does; slower
lanczos, nystroem    rank products, once          many right sides, low effective rank
woodbury_dual        n gradients                  exact with few examples
datainf              n gradients                  one pass, layer by layer
diagonal             its diagonal                 one division
identity             nothing                      plain gradient products
==================== ============================ ===================================
"""

from jaxunlearn.gradients.solvers.conjugate_gradients import cg
from jaxunlearn.gradients.solvers.damping import (
    DampingChoice,
    damping_by_validation,
    damping_from_mean_eigenvalue,
)
from jaxunlearn.gradients.solvers.dual import (
    datainf,
    datainf_damping,
    woodbury,
    woodbury_dual,
)
from jaxunlearn.gradients.solvers.eigenpairs import (
    LowRank,
    lanczos_eigenpairs,
    nystroem_eigenpairs,
)
from jaxunlearn.gradients.solvers.elementwise import diagonal, identity
from jaxunlearn.gradients.solvers.low_rank_inverse import (
    lanczos,
    low_rank,
    low_rank_preconditioner,
    nystroem,
)
from jaxunlearn.gradients.solvers.neumann import largest_eigenvalue, lissa
from jaxunlearn.gradients.solvers.result import (
    Solution,
    Status,
    message,
    python_while_loop,
    relative_residual,
)

__all__ = [
    "DampingChoice",
    "LowRank",
    "Solution",
    "Status",
    "cg",
    "damping_by_validation",
    "damping_from_mean_eigenvalue",
    "datainf",
    "datainf_damping",
    "diagonal",
    "identity",
    "lanczos",
    "lanczos_eigenpairs",
    "largest_eigenvalue",
    "lissa",
    "low_rank",
    "low_rank_preconditioner",
    "message",
    "nystroem",
    "nystroem_eigenpairs",
    "python_while_loop",
    "relative_residual",
    "woodbury",
    "woodbury_dual",
]
