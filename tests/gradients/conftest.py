"""The slow way to every statistic of per-example gradients, beside the fast ones."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.gradients import fisher_diagonal, layer_taps, per_example_norms
from jaxunlearn.gradients.taps import outer_products
from jaxunlearn.gradients.taps.heads import form_products
from jaxunlearn.gradients.taps.listening import UntappedWarning


@pytest.fixture(scope="session")
def fast():
    """Compile without optimisation: these programs run once."""
    options = {"xla_backend_optimization_level": 0}
    return functools.partial(jax.jit, compiler_options=options)


@pytest.fixture(scope="session")
def one_by_one():
    """Every example's gradient by vmap(grad), in its batch of one."""

    def gradients(loss, params, batch):
        def own(example):
            alone = jax.tree.map(lambda x: x[None], example)
            return jax.grad(lambda p: loss(p, alone)[0])(params)

        return jax.vmap(own)(batch)

    return gradients


@pytest.fixture(scope="session")
def compared(fast, one_by_one):
    """Compare with vmap(grad); return the names of what was not tapped."""

    def compare(loss, params, batch, *, eps=2.0**-23, passes=False):
        untapped = []

        def both(params, batch):
            taps = layer_taps(loss, params, batch)
            untapped.extend(taps.untapped)
            expected = one_by_one(loss, params, batch)
            found = {name: gradients_of(taps, name) for name in taps.products}
            if not passes:
                return expected, found, None, None
            norms = per_example_norms(loss, params, batch)
            return expected, found, norms, fisher_diagonal(loss, params, batch)

        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", UntappedWarning)
            expected, found, norms, fisher = fast(both)(params, batch)
        assert bool(warned) == bool(untapped)
        expected = {
            k: np.asarray(x, np.float32) for k, x in tree.named_leaves(expected)
        }
        assert set(found) == set(expected)
        scale = max(np.abs(g).max() for g in expected.values())
        assert np.isfinite(scale)
        assert scale > 0
        close = functools.partial(np.testing.assert_allclose, rtol=0)
        for name, gradient in expected.items():
            own = np.asarray(found[name]).reshape(gradient.shape)
            close(own, gradient, atol=200 * eps * scale, err_msg=name)
        if passes:
            for name, leaf in tree.named_leaves(fisher):
                mean = (expected[name] ** 2).mean(axis=0)
                close(leaf, mean, atol=400 * eps * scale**2, err_msg=name)
            flat = [g.reshape(len(g), -1) for g in expected.values()]
            length = np.linalg.norm(np.concatenate(flat, axis=1), axis=1)
            close(norms, length, atol=400 * eps * length.max())
        return set(untapped)

    return compare


def gradients_of(taps, name):
    """Return a leaf's gradients [B,...] from its outer products."""
    view = taps.views[name]
    formed = tuple(form_products(part) for part in taps.products[name])
    of = functools.partial(outer_products.gradients, rows=view.rows)
    for _ in view.stack:
        of = jax.vmap(of)
    return jnp.moveaxis(of(formed), len(view.stack), 0)
