"""A run small enough to differentiate whole: softmax regression, nine steps."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="session")
def small_run():
    """Data, loss, batches and queries of a run over 12 examples, three epochs."""
    draw = np.random.default_rng(0)
    examples, width, classes, queries = 12, 4, 3, 5
    inputs = draw.normal(size=(examples, width)).astype(np.float32)
    # A column of zeros: weights whose gradient is exactly 0 in every step.
    inputs[:, 3] = 0
    data = {"x": inputs, "y": draw.integers(0, classes, examples).astype(np.int32)}
    query = {
        "x": draw.normal(size=(queries, width)).astype(np.float32),
        "y": draw.integers(0, classes, queries).astype(np.int32),
    }
    order = np.concatenate([draw.permutation(examples) for _ in range(3)])

    def loss(params, batch):
        logits = batch["x"] @ params["kernel"] + params["bias"]
        log_probability = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(log_probability, batch["y"][:, None], 1)[:, 0]

    kernel = draw.normal(size=(width, classes)).astype(np.float32)
    return types.SimpleNamespace(
        examples=examples,
        data=data,
        query=query,
        order=order.reshape(-1, 4).astype(np.int32),
        loss=loss,
        params={"kernel": jnp.asarray(kernel), "bias": jnp.zeros(classes)},
    )
