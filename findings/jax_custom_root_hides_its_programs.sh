#!/usr/bin/env bash
# Expected: a jaxpr shows what is computed: the programs of lax.custom_root stand in its
# equations, so flops can be counted and layers found.
# Happens: in jax 0.10.2 they do (custom_jvp_call). In jax 0.12.0.1 the equation is
# call_hi_primitive with one parameter, an object that keeps Python functions: whoever
# walks the jaxpr finds no product in it, and counts 0.
# What we do: flops are not counted but refused (`check_open` in gradients/programs.py);
# a layer called in there is not tapped, since the loss depends on it otherwise too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.13}" -m venv "$folder/venv"  # jax 0.12 needs 3.12 or newer
for version in 0.10.2 0.12.0.1; do
  "$folder/venv/bin/pip" install -q "jax==$version" "jaxlib==$version"
  JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'END'
import jax
import jax.numpy as jnp


def root(x, w):
    def solve(f, y):
        return y - f(y) @ w

    return jax.lax.custom_root(lambda y: y @ w - x, x, solve, lambda g, y: y)


def names(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from names(inner)


found = list(names(jax.make_jaxpr(root)(jnp.ones((2, 2)), jnp.ones((2, 2))).jaxpr))
print("jax", jax.__version__, found)
assert ("dot_general" in found) == (jax.__version__ == "0.10.2")
assert ("call_hi_primitive" in found) == (jax.__version__ == "0.12.0.1")
END
done
