"""One, two and eight devices train and replay to the same numbers."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxunlearn import placement

SCRIPT = """
import sys
import jax, numpy as np
from jaxunlearn import tree
from jaxunlearn.data import Example, TokenizedData
from jaxunlearn.models.gpt2 import GPT2, GPT2Config
from jaxunlearn.models.tying import tie
from jaxunlearn.training import Recipe, replayed_gradient, train

rng = np.random.default_rng(0)
examples = []
for record in range(13):
    ids = rng.integers(1, 97, rng.integers(4, 12)).astype(np.int32)
    labels = ids.copy()
    labels[:2] = -100
    examples.append(Example(ids, labels, record))
data = TokenizedData(tuple(examples), 0, 0)
model = GPT2(GPT2Config(vocab_size=97, n_positions=16, n_embd=16, n_layer=2, n_head=2))
start = model.init(key=jax.random.key(0))
recipe = Recipe(epochs=2, batch_size=8, learning_rate=0.1, optimizer="sgd")
trained = train(model, start, data, recipe).params
spread = len(trained["wte"]["embedding"].sharding.device_set)
gradient, _ = replayed_gradient(model, recipe, data, start, [1, 5, 12])
flat = lambda t: np.concatenate([np.ravel(x) for _, x in tree.named_leaves(t)])
flats = {"trained": flat(trained), "gradient": flat(tie(gradient))}
np.savez(sys.argv[1], spread=spread, **flats)
"""


def on_devices(count: int, folder) -> dict:
    # In a process of its own: the number of devices is fixed when JAX starts.
    out = folder / f"{count}.npz"
    flags = os.environ.get("XLA_FLAGS", "")
    flags += f" --xla_force_host_platform_device_count={count}"
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(out)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        check=True,
        timeout=300,
    )
    return dict(np.load(out))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("count", [8, pytest.param(2, marks=pytest.mark.slow)])
def test_results_do_not_depend_on_the_number_of_devices(tmp_path, count):
    one, many = on_devices(1, tmp_path), on_devices(count, tmp_path)
    assert one["spread"] == 1
    assert many["spread"] == count
    eps = np.finfo(np.float32).eps
    # Sums over the batch are taken in another order, in each of the steps.
    assert distance(many["trained"], one["trained"]) < 16 * eps
    assert distance(many["gradient"], one["gradient"]) < 64 * eps


def test_a_leaf_goes_where_the_first_pattern_says():
    mesh = jax.make_mesh((1, 1), ("data", "model"))
    rules = {"attn/.*kernel": (None, "model"), "kernel": ("model", None)}
    place = placement.leaf_shardings(mesh, rules)
    assert place("h/attn/c_attn/kernel", (16, 48)).spec == jax.P(None, "model")
    assert place("h/mlp/c_fc/kernel", (16, 64)).spec == jax.P("model", None)
    assert place("ln_f/bias", (16,)).spec == jax.P()
    with pytest.raises(ValueError, match="kernel of shape .* cannot be spread"):
        place("h/attn/c_attn/kernel", (16,))
    with pytest.raises(ValueError, match=r"rules\['wte'\]: .* no axis 'rows'"):
        placement.leaf_shardings(mesh, {"wte": ("rows",)})
