"""Query gradients times an inverse curvature: the directions of influence functions.

Each function turns query gradients, a tree with leaves [Q, ...], into directions of the
same form, and says what it inverted, with which damping, and what its solver noted.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.gradients import solvers
from jaxunlearn.gradients.arguments import selection
from jaxunlearn.gradients.batching import example_count
from jaxunlearn.gradients.kronecker.fit import KroneckerFactors, fit_ekfac, fit_kfac
from jaxunlearn.gradients.kronecker.inverse import (
    MEAN_EIGENVALUE,
    Damping,
    damping_of,
    kronecker_inverse_vp,
)
from jaxunlearn.gradients.per_example import fisher_diagonal
from jaxunlearn.gradients.solvers import Solution
from jaxunlearn.influence.methods.directions import (
    absolute_damping,
    whole,
)
from jaxunlearn.influence.methods.rank_one import by_datainf, by_woodbury
from jaxunlearn.influence.work import Directions, Work, curvature_product, joined
from jaxunlearn.types import LinearMap, Params


def solved(
    work: Work, queries: Params, solve: Callable[[LinearMap, Params, Any], Solution]
) -> Directions:
    """Return the solutions of ``(A + damping I) x = g_q``, query by query."""
    damping, queries = absolute_damping(work), whole(work.params, queries)
    size = example_count(work.train[0])
    train = joined(work.train)

    def one(params: Params, train: Any, vector: Params, damping: Any) -> Solution:
        product = curvature_product(work, params, train, size)
        return solve(product, vector, damping)

    compiled = jax.jit(one)
    found, notes = [], []
    count = jax.tree.leaves(queries)[0].shape[0]
    for q in range(count):
        vector = jax.tree.map(lambda x, q=q: x[q], queries)
        solution = compiled(work.params, train, vector, jnp.float32(damping))
        found.append(jax.device_get(solution.value))
        status = solvers.Status(int(solution.status))
        notes.append(
            f"query {q}: {status.name.lower()} after {int(solution.iterations)} steps, "
            f"residual {float(solution.residual):.2e}: {solvers.message(status)}"
        )
        if work.progress is not None:
            work.progress(q + 1, count)
    directions = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *found)
    return Directions(directions, work.curvature, damping, tuple(notes))


def by_cg(work: Work, queries: Params) -> Directions:
    """Conjugate gradients."""
    return solved(
        work,
        queries,
        lambda product, vector, damping: solvers.cg(
            product,
            vector,
            damping=damping,
            tolerance=work.tolerance,
            max_steps=work.max_steps,
        ),
    )


def by_ekfac_cg(work: Work, queries: Params) -> Directions:
    """Conjugate gradients, preconditioned by EK-FAC at the same damping."""
    factors = kronecker_factors(work, fit_ekfac)

    def solve(product: LinearMap, vector: Params, damping: Any) -> Solution:
        def precondition(vector: Params) -> Params:
            return kronecker_inverse_vp(factors, vector, damping=damping)

        return solvers.cg(
            product,
            vector,
            damping=damping,
            tolerance=work.tolerance,
            max_steps=work.max_steps,
            preconditioner=precondition,
        )

    return solved(work, queries, solve)


def by_lissa(work: Work, queries: Params) -> Directions:
    """LiSSA's recursion; its scale is measured by power iteration."""
    return solved(
        work,
        queries,
        lambda product, vector, damping: solvers.lissa(
            product,
            vector,
            damping=damping,
            key=work.key,
            tolerance=work.tolerance,
            max_steps=work.max_steps,
        ),
    )


def by_lanczos(work: Work, queries: Params) -> Directions:
    """The leading eigenpairs (Arnoldi), and the damping alone beside them."""
    return by_eigenpairs(work, queries, solvers.lanczos_eigenpairs)


def by_nystroem(work: Work, queries: Params) -> Directions:
    """A random sketch of the curvature."""
    return by_eigenpairs(work, queries, solvers.nystroem_eigenpairs)


def by_eigenpairs(work: Work, queries: Params, find: Callable) -> Directions:
    """Return solutions with a low-rank curvature that is made once."""
    damping = absolute_damping(work)
    mask = selection(work.loss, work.params, work.layers)

    def all_queries(params: Params, train: Any, queries: Params) -> tuple:
        product = curvature_product(work, params, train, example_count(work.train[0]))
        pairs = find(product, params, rank=work.rank, key=work.key, mask=mask)

        def one(vector: Params) -> Params:
            return solvers.low_rank(pairs, vector, damping=damping).value

        return jax.lax.map(one, queries), pairs.eigenvalues, pairs.smallest

    found, eigenvalues, smallest = jax.jit(all_queries)(
        work.params, joined(work.train), whole(work.params, queries)
    )
    note = (
        f"rank {work.rank}: eigenvalues {float(eigenvalues.max()):.3g} to "
        f"{float(eigenvalues.min()):.3g}, smallest seen {float(smallest):.3g}"
    )
    return Directions(found, work.curvature, damping, (note,))


def by_diagonal(work: Work, queries: Params) -> Directions:
    """The Fisher's diagonal."""
    diagonal = fisher_diagonal(work.loss, work.params, work.train, layers=work.layers)
    damping = work.damping if work.damping is not None else MEAN_EIGENVALUE
    if isinstance(damping, Damping):
        mean = sum(float(x.sum()) for x in jax.tree.leaves(diagonal)) / work.selected
        share = damping.value * mean
        damping = share if damping.rule == "mean_eigenvalue" else damping.value
    found = jax.vmap(
        lambda vector: solvers.diagonal(diagonal, vector, damping=damping).value
    )(whole(work.params, queries))
    return Directions(found, "fisher, diagonal", float(damping))


def kronecker_factors(work: Work, fit: Callable) -> KroneckerFactors:
    """Return the factors of the training data's empirical Fisher."""
    return fit(
        work.loss,
        work.params,
        work.train,
        layers=work.layers,
        state_path=None if work.state is None else work.state / "factors",
        progress=work.progress,
    )


def by_kfac(work: Work, queries: Params) -> Directions:
    """K-FAC."""
    return by_factors(work, queries, fit_kfac)


def by_ekfac(work: Work, queries: Params) -> Directions:
    """EK-FAC."""
    return by_factors(work, queries, fit_ekfac)


def by_factors(work: Work, queries: Params, fit: Callable) -> Directions:
    """Return directions by Kronecker factors."""
    factors = kronecker_factors(work, fit)
    rule = MEAN_EIGENVALUE if work.damping is None else work.damping
    found = kronecker_inverse_vp(factors, whole(work.params, queries), damping=rule)
    told = told_damping(factors, rule)
    return Directions(found, f"fisher, {factors.method}", told)


def told_damping(factors: KroneckerFactors, rule: Any) -> dict[str, list[float]]:
    """Return the damping of each layer as plain numbers."""
    return {
        name: np.asarray(x).ravel().tolist()
        for name, x in damping_of(factors, rule).items()
    }


INVERSES: dict[str, Callable[[Work, Params], Directions]] = {
    "identity": lambda work, queries: Directions(queries, "none", None),
    "cg": by_cg,
    "ekfac_cg": by_ekfac_cg,
    "lissa": by_lissa,
    "lanczos": by_lanczos,
    "nystroem": by_nystroem,
    "diagonal": by_diagonal,
    "woodbury": by_woodbury,
    "datainf": by_datainf,
    "kfac": by_kfac,
    "ekfac": by_ekfac,
}
"""How query gradients are multiplied by an inverse curvature."""
