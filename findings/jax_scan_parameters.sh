#!/usr/bin/env bash
# Expected: two releases of JAX record the same lax.scan in the same form, so that what
# walks jaxprs may ask an equation how many operands are constants and how many carried.
# Happens: jax 0.10.2 says num_consts and num_carry, jax 0.12.0.1 has neither and says
# ft_in and ft_out, trees whose leaves are None. Nothing warned in between, and code that
# catches KeyError computes something else without a word.
# What we do: shapes tell the operands apart (`gradients/programs.py`), and their order
# is checked on a scan of known shapes; whatever cannot be read is an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.13}" -m venv "$folder/venv"  # jax 0.12 needs 3.12 or newer
for version in 0.10.2 0.12.0.1; do
  "$folder/venv/bin/pip" install -q "jax==$version" "jaxlib==$version"
  JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'END'
import jax
import jax.numpy as jnp


def body(carry, x):
    return carry + x, x


scan = jax.make_jaxpr(lambda c, xs: jax.lax.scan(body, c, xs))
(equation,) = scan(0.0, jnp.ones(3)).jaxpr.eqns
print("jax", jax.__version__, sorted(equation.params))
old = jax.__version__ == "0.10.2"
assert ("num_carry" in equation.params) == ("num_consts" in equation.params) == old
assert ("ft_in" in equation.params) == ("ft_out" in equation.params) == (not old)
END
done
