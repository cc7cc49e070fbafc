"""The stages of every method that can be planned, inverses among them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxunlearn.gradients import solvers
from jaxunlearn.gradients.accumulation import add_statistic
from jaxunlearn.gradients.arguments import selection
from jaxunlearn.gradients.curvature_products import gauss_newton_vp, hvp
from jaxunlearn.gradients.fisher import fisher_vp
from jaxunlearn.gradients.kronecker.eigendecomposition import eigenbasis
from jaxunlearn.gradients.kronecker.fit import LARGEST_FACTOR, fit_ekfac, fit_kfac
from jaxunlearn.gradients.kronecker.inverse import kronecker_inverse_vp
from jaxunlearn.gradients.kronecker.layout import Matrix
from jaxunlearn.gradients.kronecker.sums import (
    Fit,
    Given,
    matrices_at,
    over_stack,
    sums_of_batch,
)
from jaxunlearn.gradients.kronecker.sums import Stage as Pass
from jaxunlearn.gradients.per_example import fisher_diagonal
from jaxunlearn.gradients.projections.projection import Projection
from jaxunlearn.influence.planner.stages import (
    Stage,
    Task,
    batch_of,
    by_activations,
    directions_of,
    each,
    example_stage,
    gradients_of,
    norms,
    plain,
    query_gradients,
    rows,
    size_of,
    sweep,
)
from jaxunlearn.types import Params


def by_diagonal(task: Task) -> list[Stage]:
    """The Fisher's diagonal."""
    fit = example_stage(
        task,
        "fisher diagonal",
        functools.partial(fisher_diagonal, task.loss, layers=task.layers),
        # The sum so far and the next one, and the queries' gradients.
        held=lambda queries: (
            2 * size_of(task.params) + size_of(gradients_of(task, queries))
        ),
    )

    def divide(diagonal: Params, vectors: Params, damping: jax.Array) -> Params:
        return jax.vmap(
            lambda vector: solvers.diagonal(diagonal, vector, damping=damping).value
        )(vectors)

    return [
        query_gradients(task),
        fit,
        once(task, "inverse", divide, lambda queries: (task.params,)),
        sweep(task, inverted=True),
    ]


def once(task: Task, name: str, function: Callable, given: Callable) -> Stage:
    """Return the stage of an inverse times all gradients, which is not batched."""
    damping = jax.ShapeDtypeStruct((), jnp.float32)
    return Stage(
        name,
        jax.jit(function),
        lambda size, queries: (
            *given(queries),
            directions_of(task, queries),
            damping,
        ),
        None,
        lambda size, queries: 1,
        lambda queries: size_of(gradients_of(task, queries)),
    )


def matrices_for(task: Task) -> tuple[Matrix, ...]:
    """Return the matrices whose Kronecker factors the task fits."""
    found: list[Matrix] = []

    def trace(params: Params, batch: Any) -> None:
        found.extend(matrices_at(task.loss, params, batch, task.layers))

    jax.eval_shape(trace, task.params, batch_of(task.batch, 1))
    return tuple(found)


def factors_for(task: Task, method: str) -> Any:
    """Return the shapes of fitted Kronecker factors."""
    fit = {"kfac": fit_kfac, "ekfac": fit_ekfac}[method]
    return jax.eval_shape(
        functools.partial(fit, task.loss, layers=task.layers),
        task.params,
        batch_of(task.batch, 1),
    )


def kronecker_fit(task: Task, method: str) -> list[Stage]:
    """The passes that fit Kronecker factors."""
    matrices = matrices_for(task)
    fit = Fit(
        task.loss, None, task.layers, None, "empirical", LARGEST_FACTOR, "float32",
        method,
    )  # fmt: skip

    def data_pass(name: str, bases: Any) -> tuple[Callable, Any]:
        part = Partial(
            sums_of_batch, Pass(fit, matrices, name), Given(task.params, bases, None)
        )
        total = jax.eval_shape(lambda p, b: p(b), part, batch_of(task.batch, 1))
        total = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), total
        )
        return lambda size, queries: (total, part, batch_of(task.batch, size)), total

    def decompose(sums: dict) -> dict:
        find = functools.partial(eigenbasis, eigh="float32")
        return {m.name: over_stack(m, find, sums[m.name]) for m in matrices}

    def gradients(queries: int) -> int:
        return size_of(gradients_of(task, queries))

    arguments, moments = data_pass("moments", {})
    bases = jax.eval_shape(decompose, moments["matrices"])
    calls = functools.partial(each, task)
    found = [
        Stage("moments", add_statistic, arguments, "examples", calls, gradients),
        Stage(
            "eigenvectors",
            jax.jit(decompose),
            lambda size, queries: (moments["matrices"],),
            None,
            lambda size, queries: 1,
            gradients,
        ),
    ]
    if method == "kfac":
        return found
    arguments, _ = data_pass("eigenvalues", bases)
    # The moments are let go only after this pass.
    return [
        *found,
        Stage(
            "eigenvalues",
            add_statistic,
            arguments,
            "examples",
            calls,
            lambda queries: size_of(moments) + gradients(queries),
        ),
    ]


def by_factors(method: str) -> Callable[[Task], list[Stage]]:
    """Influence functions with Kronecker factors."""

    def stages(task: Task) -> list[Stage]:
        factors = factors_for(task, method)

        def invert(factors: Any, vectors: Params, damping: jax.Array) -> Params:
            return kronecker_inverse_vp(factors, vectors, damping=damping)

        return [
            query_gradients(task),
            *kronecker_fit(task, method),
            once(task, "inverse", invert, lambda queries: (factors,)),
            sweep(task, inverted=True),
        ]

    return stages


def curvature_product(task: Task, params: Params, train: Any, size: int) -> Callable:
    """Return ``v -> A v`` over the training examples, ``size`` at a time."""
    product = {"fisher": fisher_vp, "gauss_newton": gauss_newton_vp, "hessian": hvp}
    return lambda vector: product[task.curvature](
        task.loss, params, train, vector, layers=task.layers, batch_size=size
    )


def lissa(product: Callable, vector: Params, **options: Any) -> solvers.Solution:
    """LiSSA with its measured scale."""
    return solvers.lissa(product, vector, key=jax.random.key(0), **options)


def by_solver(solver: Callable) -> Callable[[Task], list[Stage]]:
    """Influence functions whose inverse is an iteration, query by query."""

    def stages(task: Task) -> list[Stage]:
        # The batch size is that of the products within the program.
        def solve(size: int, params: Params, train: Any, vector: Params) -> Params:
            product = curvature_product(task, params, train, size)
            return solver(product, vector, damping=1.0).value

        return [
            query_gradients(task),
            norms(task),
            Stage(
                "solve",
                jax.jit(solve, static_argnums=0),
                lambda size, queries: (
                    size,
                    task.params,
                    batch_of(task.batch, task.examples),
                    task.params,
                ),
                "examples",
                lambda size, queries: queries,
                lambda queries: size_of(
                    (gradients_of(task, queries), directions_of(task, queries))
                ),
            ),
            sweep(task, inverted=True),
        ]

    return stages


def by_eigenpairs(find: Callable) -> Callable[[Task], list[Stage]]:
    """Influence functions on eigenpairs that are found once."""

    def stages(task: Task) -> list[Stage]:
        mask = selection(task.loss, task.params, task.layers)

        def solve(size: int, params: Params, train: Any, queries: Params) -> Params:
            product = curvature_product(task, params, train, size)
            key = jax.random.key(0)
            pairs = find(product, params, rank=task.rank, key=key, mask=mask)
            return jax.lax.map(
                lambda vector: solvers.low_rank(pairs, vector, damping=1.0).value,
                queries,
            )

        return [
            query_gradients(task),
            norms(task),
            Stage(
                "eigenpairs",
                jax.jit(solve, static_argnums=0),
                lambda size, queries: (
                    size,
                    task.params,
                    batch_of(task.batch, task.examples),
                    directions_of(task, queries),
                ),
                "examples",
                lambda size, queries: 1,
                lambda queries: size_of(gradients_of(task, queries)),
            ),
            sweep(task, inverted=True),
        ]

    return stages


STAGES: dict[str, Callable[[Task], list[Stage]]] = {
    "gradient_dot": plain,
    "tracin": plain,
    "cosine": lambda task: [query_gradients(task), sweep(task), norms(task)],
    "diagonal": by_diagonal,
    "cg": by_solver(solvers.cg),
    "lissa": by_solver(lissa),
    "lanczos": by_eigenpairs(solvers.lanczos_eigenpairs),
    "nystroem": by_eigenpairs(solvers.nystroem_eigenpairs),
    "kfac": by_factors("kfac"),
    "ekfac": by_factors("ekfac"),
    "logra": rows(Projection()),
    "trak": rows(Projection("dense", (2048,))),
    "index": rows(Projection()),
    "act_act": by_activations("act_act"),
    "act_grad": by_activations("act_grad"),
}
"""The methods that can be planned."""

PARTS_ADD_UP = ("kfac", "ekfac")
"""Methods that are fitted and scored layer group by layer group, and added."""
