#!/usr/bin/env bash
# Expected: with XLA's backend optimization off (--xla_backend_optimization_level=0, the
# advice for tests on a CPU) what is left of compiling is little, and the same whichever
# way fusions are emitted.
# Happens: of jaxlib 0.10.2 on a CPU the default fusion emitters take most of it. The
# gradient of two small transformer blocks needs over twice the CPU time to compile
# that it needs with --xla_cpu_use_fusion_emitters=false; results agree to rounding.
# jaxlib 0.12.0 has no such flag any more.
# What we do: our tests, which compile thousands of small programs, set the flag where
# jaxlib is 0.10 (tests/conftest.py), and only there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2
cat > "$folder/compile.py" <<'END'
import time

import jax
import jax.numpy as jnp
import numpy as np


def norm(x):
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


def loss(params, x):
    for w in params:
        q, k, v = jnp.split(norm(x) @ w["qkv"], 3, -1)
        scores = jnp.where(jnp.tri(x.shape[1]) > 0, q @ k.swapaxes(1, 2), -1e9)
        x = x + jax.nn.softmax(scores) @ v
        x = x + jax.nn.gelu(norm(x) @ w["up"]) @ w["down"]
    return -jax.nn.log_softmax(x)[..., 0].mean()


draw = np.random.default_rng(0)
shapes = {"qkv": (16, 48), "up": (16, 64), "down": (64, 16)}
params = [
    {name: jnp.float32(0.1 * draw.normal(size=shape)) for name, shape in shapes.items()}
    for _ in range(2)
]
x = jnp.float32(draw.normal(size=(4, 16, 16)))
lowered = jax.jit(jax.grad(loss)).lower(params, x)
begun = time.process_time()
compiled = lowered.compile()
spent = time.process_time() - begun
norms = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(compiled(params, x)))
print(spent, norms)
END
for flag in true false true false; do
  XLA_FLAGS="--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=$flag" \
    JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/compile.py" |
    sed "s/^/$flag /" | tee -a "$folder/found"
done
"$folder/venv/bin/python" - "$folder/found" <<'END'
import sys

rows = [line.split() for line in open(sys.argv[1])]
spent, norms = {}, {}
for flag, seconds, squares in rows:
    spent[flag] = min(spent.get(flag, 1e9), float(seconds))
    norms[flag] = float(squares)
ratio = spent["true"] / spent["false"]
print(f"CPU seconds to compile, fusion emitters on / off: {ratio:.2f}")
assert ratio > 1.5
assert abs(norms["true"] / norms["false"] - 1) < 1e-5
END
