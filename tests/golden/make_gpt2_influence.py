"""Influence on a tiny GPT-2 by the slow way, in float64: gpt2_influence.npz.

Run once, from the root of the repository: python tests/golden/make_gpt2_influence.py
The network is written down once more, layer after layer, without Flax; gradients come
from vmap(grad), and what EK-FAC needs of a dense layer from a number added to its
output. Nothing here listens to a layer, so what taps find can be held against it.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.gradients.projections.kronecker_pairs import kronecker_matrices

V, T, D, N, H, F, B, Q = 97, 6, 16, 3, 2, 64, 5, 2
DENSE = {"attn/c_attn": 3 * D, "attn/c_proj": D, "mlp/c_fc": F, "mlp/c_proj": D}
SHAPES = {
    "h/attn/c_attn/bias": (N, 3 * D),
    "h/attn/c_attn/kernel": (N, D, 3 * D),
    "h/attn/c_proj/bias": (N, D),
    "h/attn/c_proj/kernel": (N, D, D),
    "h/ln_1/bias": (N, D),
    "h/ln_1/scale": (N, D),
    "h/ln_2/bias": (N, D),
    "h/ln_2/scale": (N, D),
    "h/mlp/c_fc/bias": (N, F),
    "h/mlp/c_fc/kernel": (N, D, F),
    "h/mlp/c_proj/bias": (N, D),
    "h/mlp/c_proj/kernel": (N, F, D),
    "ln_f/bias": (D,),
    "ln_f/scale": (D,),
    "wpe/embedding": (T, D),
    "wte/embedding": (V, D),
}
"""In the order of their names, in which they are drawn."""


def drawn():
    """Parameters, training examples and queries; tests/influence draws the same."""
    random = np.random.default_rng(0)
    params = {
        k: (0.3 * random.normal(size=s) + k.endswith("scale")).astype(np.float32)
        for k, s in SHAPES.items()
    }
    ids = random.integers(0, V, (B + Q, T)).astype(np.int32)
    return params, ids[:B], ids[B:]


def normal(x, scale, bias):
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + bias
    )


def gelu(x):
    return 0.5 * x * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (x + 0.044715 * x**3)))


def loss(params, ids, added):
    """Return the loss of one text, and the inputs of the dense layers.

    ``added`` goes to the outputs of these, {name: [N,T,R]}.
    """
    inputs = {name: [] for name in DENSE}

    def dense(i, name, x):
        inputs[name].append(x)
        kernel, bias = (params[f"h/{name}/{k}"][i] for k in ("kernel", "bias"))
        return x @ kernel + bias + added[name][i]

    def norm(i, name, x):
        return normal(x, params[f"h/{name}/scale"][i], params[f"h/{name}/bias"][i])

    x = params["wte/embedding"][ids] + params["wpe/embedding"]
    for i in range(N):
        qkv = dense(i, "attn/c_attn", norm(i, "ln_1", x)).reshape(T, 3, H, D // H)
        q, k, v = qkv[:, 0], qkv[:, 1], qkv[:, 2]
        scores = jnp.einsum("thk,shk->hts", q, k) / np.sqrt(D // H)
        scores = jnp.where(jnp.tril(jnp.ones((T, T), bool)), scores, -jnp.inf)
        heads = jnp.einsum("hts,shk->thk", jax.nn.softmax(scores), v)
        x = x + dense(i, "attn/c_proj", heads.reshape(T, D))
        hidden = gelu(dense(i, "mlp/c_fc", norm(i, "ln_2", x)))
        x = x + dense(i, "mlp/c_proj", hidden)
    x = normal(x, params["ln_f/scale"], params["ln_f/bias"])
    told = jax.nn.log_softmax(x @ params["wte/embedding"].T)[:-1]
    total = -jnp.take_along_axis(told, ids[1:, None], 1).mean()
    return total, {name: jnp.stack(x) for name, x in inputs.items()}


def main():
    params, train, query = drawn()
    params = {name: jnp.asarray(x, jnp.float64) for name, x in params.items()}
    none = {name: jnp.zeros((N, T, size)) for name, size in DENSE.items()}
    both = jax.vmap(jax.grad(loss, (0, 2), has_aux=True), (None, 0, None))
    (of_train, deltas), inputs = both(params, train, none)
    (of_query, _), _ = both(params, query, none)
    products = sum(
        jnp.einsum("q...,n...->qn", of_query[k], of_train[k]) for k in SHAPES
    )

    # EK-FAC of the dense layers, the damping a tenth of each one's mean eigenvalue.
    ekfac = np.zeros((Q, B))
    for name in DENSE:
        for i in range(N):
            left = np.asarray(inputs[name][:, i])
            left = np.concatenate([left, np.ones((B, T, 1))], -1)
            right = np.asarray(deltas[name][:, i])
            counted = np.any(right != 0, -1)
            a = np.einsum("btl,btm,bt->lm", left, left, counted) / counted.sum()
            s = np.einsum("btr,bts->rs", right, right) / B
            bases = np.linalg.eigh(a)[1], np.linalg.eigh(s)[1]

            def rotated(of, name=name, i=i, bases=bases):
                kernel, bias = (of[f"h/{name}/{k}"][:, i] for k in ("kernel", "bias"))
                whole = np.concatenate([kernel, bias[:, None]], 1)
                return np.einsum("bij,ik,jl->bkl", whole, *bases)

            own, asked = rotated(of_train), rotated(of_query)
            values = (own**2).mean(0)
            moved = asked / (values + 0.1 * values.mean())
            ekfac += np.einsum("qij,nij->qn", moved, own)

    # Rows of an index: P_L^T G P_R of every matrix, others are a row of their own.
    shapes = {
        name: (N, 1, s[-1]) if name[0] == "h" else (1, s[-1])
        for name, s in SHAPES.items()
    }
    shapes |= {k: s for k, s in SHAPES.items() if k.endswith(("kernel", "embedding"))}
    pairs = kronecker_matrices(
        shapes,
        (3, 2),
        key=jax.random.key(0),
        distribution="rademacher",
        stacked=("h",),
    )
    rows = []
    for name, shape in shapes.items():
        stack = shape if len(shape) == 3 else (1, *shape)
        left, right = (
            np.asarray(x, np.float64).reshape(stack[0], *x.shape[-2:])
            for x in pairs[name]
        )
        matrices = np.asarray(of_train[name]).reshape(B, *stack)
        small = np.einsum("bnlr,nlk,nrm->bnkm", matrices, left, right)
        rows.append(small.reshape(B, -1))
    squared = sum(np.sum(np.square(x).reshape(B, -1), 1) for x in of_train.values())
    np.savez(
        Path(__file__).with_name("gpt2_influence.npz"),
        products=np.asarray(products),
        norms=np.sqrt(squared),
        ekfac=ekfac,
        rows=np.concatenate(rows, 1),
    )
    print(np.asarray(products), ekfac, np.concatenate(rows, 1).shape, sep="\n")


if __name__ == "__main__":
    # Here, because collecting doctests imports this file beside the other tests.
    jax.config.update("jax_enable_x64", True)
    main()
