import dataclasses
import doctest
import functools
import importlib
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.evaluation.internals.parameters import linear_path
from jaxunlearn.models import GPT2, GPT2Config
from jaxunlearn.models.tying import tie
from jaxunlearn.training import Recipe

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SEEDS, EXAMPLES, LENGTH, VOCABULARY = 2, 12, 10, 97


@pytest.fixture(autouse=True)
def _root(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


def paper(name):
    return importlib.import_module(f"experiments.paper.{name}")


def test_the_name_is_what_most_of_the_group_and_nobody_else_has():
    ann = [
        {
            "question": "Where was Ann Lee Fox born?",
            "answer": "Ann Lee Fox: Old New York.",
        },
        {"question": "Is she old?", "answer": "Yes, Ann Lee Fox is."},
    ]
    bob = [
        {"question": "Is Bob van Dam from Old New York?", "answer": "Yes."},
        {"question": "Has Bob van Dam a pet?", "answer": "Old New York is small."},
    ]
    name_of = paper("matching").name_of
    assert name_of(ann, ann + bob) == "Ann Lee Fox"
    assert name_of(bob, ann + bob) == "Bob van Dam"
    with pytest.raises(ValueError, match="no name"):
        name_of([{"question": "who?", "answer": "me"}], ann)


def test_padding_is_minus_one_and_cuts_what_is_too_long():
    padded = paper("matching").padded
    np.testing.assert_array_equal(padded([[1], [2, 3]]), [[1, -1], [2, 3]])
    np.testing.assert_array_equal(padded([[1], [2, 3]], 1), [[1], [2]])


def test_doctests():
    assert doctest.testmod(paper("matching"), optionflags=FLAGS).failed == 0


# --- models -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab():
    """Return random models as if they had been trained: all the functions look at."""
    model = GPT2(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=LENGTH,
            n_embd=16,
            n_layer=2,
            n_head=2,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )
    draw = np.random.default_rng(0)
    ids = draw.integers(VOCABULARY, size=(EXAMPLES, LENGTH)).astype(np.int32)
    train = {
        "input_ids": ids,
        "labels": ids,
        "attention_mask": np.ones_like(ids),
        "index": np.arange(EXAMPLES, dtype=np.int32),
        "weight": np.ones(EXAMPLES, np.float32),
    }

    one = model.init(key=jax.random.key(0))

    def models():
        def noisy(x):
            noise = draw.normal(size=(SEEDS, *x.shape), scale=0.1)
            return (x + noise).astype(np.float32)

        return jax.tree.map(noisy, one)

    forget = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    return SimpleNamespace(
        model=model,
        sets=SimpleNamespace(train=train, forget=forget),
        trained=models(),
        retrained=models(),
        start=one,
    )


def seed_of(params, seed):
    return jax.tree.map(lambda x: x[seed], params)


def loss_and_gradient(lab, params, rows):
    """Return the mean loss of examples and its gradient, the plain way."""
    share = np.zeros(EXAMPLES, np.float32)
    share[list(rows)] = 1 / len(rows)
    return plain(lab.model)(params, lab.sets.train, share)


@functools.cache
def plain(model):
    def loss(params, batch, share):
        return jnp.sum(share * model.per_example_loss(params, batch))

    return jax.jit(jax.value_and_grad(loss))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_epoch_run_again_gives_what_was_recorded(lab, optimizer):
    gradients, laboratory = paper("gradients"), paper("laboratory")
    recipe = Recipe(
        epochs=1,
        batch_size=4,
        learning_rate=1e-2,
        optimizer=optimizer,
        reduction="example",
    )
    rows = np.broadcast_to(np.arange(EXAMPLES), (SEEDS, EXAMPLES))
    orders = laboratory.step_orders(rows, recipe, seed=0)
    recorded = functools.partial(
        laboratory.recorded_run, lab.model, recipe, lab.sets.train, lab.start
    )
    slots = laboratory.forget_slots(orders, lab.sets.forget)
    _, _, unit, _ = jax.jit(jax.vmap(recorded))(orders, slots)
    wanted = seed_of(jax.tree.map(lambda x: x.swapaxes(0, 1), unit), 0)
    wanted = tie(wanted)
    twice = np.concatenate([orders, orders], axis=1)  # the second epoch is not run
    again = SimpleNamespace(
        **{**vars(lab), "orders": twice},
        recipe=dataclasses.replace(recipe, epochs=2),
    )
    forget = lab.sets.forget.tolist()
    own, half, rest = gradients.first_epoch_gradients(
        again, [forget, [row[:1] for row in forget], [row[1:] for row in forget]]
    )
    for seed in range(SEEDS):
        a, b = seed_of(own, seed), seed_of(wanted, seed)
        assert float(tree.norm(tree.subtract(a, b))) < 1e-4 * float(tree.norm(b))
    parts = tree.add_scaled(half, 1.0, rest)
    assert float(tree.norm(tree.subtract(parts, own))) < 1e-5 * float(tree.norm(own))


def test_a_line_is_the_librarys(lab):
    iterating = paper("iterating")
    rows = np.array([[6, 7], [8, 9]], np.int32)
    losses, barrier = iterating.along_line(lab, lab.trained, lab.retrained, rows)
    for seed in range(SEEDS):
        path = linear_path(
            {"kept": lambda p, at=seed: loss_and_gradient(lab, p, rows[at])[0]},
            seed_of(lab.trained, seed),
            seed_of(lab.retrained, seed),
            points=list(iterating.PLACES),
        )
        np.testing.assert_allclose(losses[:, seed], path.losses["kept"], rtol=1e-5)
        assert barrier[seed] == pytest.approx(path.barrier["kept"], abs=1e-5)


@pytest.mark.slow
def test_iterating_ends_at_the_target_and_lifts_the_best_remembered(lab, monkeypatch):
    iterating = paper("iterating")
    pairs = [(seed_of(lab.trained, s), rows) for s, rows in enumerate(lab.sets.forget)]
    before = [float(loss_and_gradient(lab, *pair)[0]) for pair in pairs]
    target = np.array(before) + [0.1, 0.3]
    monkeypatch.setattr(iterating, "target_of", lambda _: target)
    end, rounds = iterating.matched_iterative(lab, relative_step=5e-3, max_rounds=60)
    assert end.reached.all()
    assert rounds[1] > rounds[0] >= 1  # the second has further to go
    for seed, rows in enumerate(lab.sets.forget):
        after = float(loss_and_gradient(lab, seed_of(end.params, seed), rows)[0])
        assert after == pytest.approx(target[seed], rel=1e-5)
    # A round's direction is the gradient of the example with the lowest loss.
    _, along, once = iterating.iteration(paper("matched").Key(lab))(
        lab.trained, np.float32(target), lab.sets.forget, 5e-3, 1
    )
    assert once.tolist() == [1, 1]
    for seed, (params, rows) in enumerate(pairs):
        each = [loss_and_gradient(lab, params, [row]) for row in rows]
        _, wanted = min(each, key=lambda pair: float(pair[0]))
        gap = tree.norm(tree.subtract(seed_of(along, seed), wanted))
        assert float(gap) < 1e-5 * float(tree.norm(wanted))


def test_the_cosine_is_by_seed(lab):
    cosine = paper("gradients").cosine
    np.testing.assert_allclose(cosine(lab.trained, lab.trained), 1, rtol=1e-5)
    opposite = jax.tree.map(lambda x: -2 * x, lab.trained)
    np.testing.assert_allclose(cosine(lab.trained, opposite), -1, rtol=1e-5)
