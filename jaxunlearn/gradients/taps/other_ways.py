"""Which parameters reach a loss by other ways than the layers that are tapped."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxunlearn import tree
from jaxunlearn.gradients.taps.listening import Call, listen
from jaxunlearn.types import Batch, Params, PerExampleLoss


def seen_elsewhere(
    loss: PerExampleLoss,
    params: Params,
    batch: Batch,
    sites: Mapping[str, Any],
    leaves: list[str],
) -> list[str]:
    """Return those ``leaves`` that reach the loss other than through the ``sites``.

    Every site's output is cut from its parameters; the loss's tangent with respect to
    a leaf is then symbolically zero unless the leaf is used elsewhere.
    """

    def cut(call: Call, forward: Callable) -> jax.Array:
        output = forward()
        # Still a function of its inputs, through which other parameters may act.
        inputs = [
            jnp.sum(x)
            for x in jax.tree.leaves(call.reading.inputs)
            if jnp.issubdtype(x.dtype, jnp.floating)
        ]
        kept = sum(inputs, start=jnp.float32(0)).astype(output.dtype)
        return jax.lax.stop_gradient(output) + jnp.zeros_like(output) * kept

    def reaches(names: list[str]) -> bool:
        answer: list[bool] = []

        @jax.custom_jvp
        def notice(x):
            return x

        def rule(primals, tangents):
            answer.append(not isinstance(tangents[0], SymbolicZero))
            return primals[0], jnp.zeros_like(primals[0])

        notice.defjvp(rule, symbolic_zeros=True)
        everything = dict(tree.named_leaves(params))

        def of_leaves(chosen: dict) -> jax.Array:
            flat = everything | chosen
            structure = jax.tree.structure(params)
            whole = jax.tree.unflatten(structure, [flat[n] for n in everything])
            heard = listen(
                loss,
                whole,
                batch,
                cut,
                among=sites,
                copied=lambda site: sites[site].copied,
            )
            return notice(heard)

        chosen = {name: everything[name] for name in names}
        jax.eval_shape(lambda c: jax.jvp(of_leaves, (c,), (c,)), chosen)
        return any(answer)

    if not leaves or not reaches(leaves):
        return []
    if len(leaves) == 1:
        return leaves
    half = len(leaves) // 2
    return [
        name
        for part in (leaves[:half], leaves[half:])
        for name in seen_elsewhere(loss, params, batch, sites, part)
    ]
