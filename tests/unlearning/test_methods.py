"""What every row of METHODS keeps to, whoever wrote it."""

import inspect

import jax
import jax.numpy as jnp
import pytest

from jaxunlearn import tree, unlearning
from jaxunlearn.training import Recipe, mean_loss_of
from jaxunlearn.unlearning import METHODS, Limits, Method, Status, Trial
from jaxunlearn.unlearning.forms import FORMS, NEEDS
from jaxunlearn.unlearning.objectives.terms import Term, compose
from jaxunlearn.unlearning.requirements import options_of

ANY = Limits(max_retain_nats=None, max_relative_step=None, tolerance=1e-2)
WORLDS = ("classification", pytest.param("language", marks=pytest.mark.slow))
ONE_LAYER = {"language": "^h/1/mlp/c_proj/", "classification": "^first/"}
RUN_NEEDS = {"run", "indices"}


def world_of(request, name, method):
    """A world in which the method can run, or skip."""
    world = request.getfixturevalue(name)
    if world.run is None and method.needs & RUN_NEEDS:
        pytest.skip("needs a training run")
    if "states" in method.needs and not hasattr(world.task, "states"):
        pytest.skip("needs states")
    return world


def apply(world, method, *, rise=0.05, learning_rate=1e-2, **given):
    """Unlearn by a row, as far as its form allows to say."""
    settings = {"limits": ANY} if method.form != "exact" else {}
    if method.form in ("objective", "edit"):
        now = mean_loss_of(world.task, world.sets.forget)(world.params)
        settings["target"] = now + rise
    if method.form == "objective":
        recipe = Recipe(epochs=4, batch_size=2, learning_rate=learning_rate)
        settings |= {"recipe": recipe}
    if method.needs & RUN_NEEDS:
        settings |= {"run": world.run, "indices": world.indices}
    return unlearning.unlearn(
        world.task, world.params, world.sets, method, **settings | given
    )


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


@pytest.mark.parametrize("name", WORLDS)
def test_a_method_reports_what_it_did_and_keeps_to_its_layers(
    request, name, method, same_bits
):
    world = world_of(request, name, method)
    given = {"layers": ONE_LAYER[name]} if method.form in ("objective", "edit") else {}
    outcome = apply(world, method, **given)
    assert outcome.status in Status
    assert all(isinstance(trial, Trial) for trial in outcome.trials)
    assert outcome.cost.seconds > 0
    assert outcome.cost.flops > 0
    task = outcome.task or world.task
    if outcome.status == Status.REACHED:
        now = mean_loss_of(world.task, world.sets.forget)(world.params)
        reached = mean_loss_of(task, world.sets.forget)(outcome.params)
        assert reached >= (now + 0.05) * (1 - 1e-4)
    if given:
        mask = tree.select(world.params, given["layers"])
        moved = tree.subtract(outcome.params, world.params)
        kept = jax.tree.map(lambda x, m: jnp.where(m, 0, x), moved, mask)
        assert float(tree.norm(kept)) == 0
        steps = outcome.steps
        assert (float(tree.norm(moved)) > 0) == (steps > 0)
    if method.form == "wrapper":
        assert same_bits(outcome.params, world.params)
    dtypes = jax.tree.map(lambda a, b: a.dtype == b.dtype, outcome.params, world.params)
    assert all(jax.tree.leaves(dtypes))


@pytest.mark.parametrize("name", WORLDS)
def test_at_its_target_a_method_changes_no_bit(request, name, method, same_bits):
    world = world_of(request, name, method)
    if method.form not in ("objective", "edit"):
        pytest.skip("goes to no target")
    outcome = apply(world, method, rise=-1e-3)
    assert (outcome.status, outcome.steps) == (Status.ALREADY, 0)
    assert same_bits(outcome.params, world.params)


def test_steps_of_length_zero_change_no_bit(classification, method, same_bits):
    if method.form != "objective":
        pytest.skip("has no learning rate")
    outcome = apply(classification, method, learning_rate=0.0)
    assert outcome.status == Status.STEPS
    assert same_bits(outcome.params, classification.params)


def test_what_is_missing_is_refused_before_work(classification, method):
    def never(*args, **kwargs):
        raise AssertionError("work was done")

    sets = classification.sets
    without = {
        "retain": {"sets": sets._replace(retain=None)},
        "unseen": {"sets": sets._replace(unseen=None)},
        "run": {"run": None},
        "indices": {"indices": None},
        "outputs": {"task": never},
        "targets": {"task": never},
        "states": {"task": never},
    }
    everything = {
        "task": classification.task,
        "sets": sets,
        "run": object(),
        "indices": [0],
    }
    # Neither called nor measured: no function of a batch may run.
    for need in method.needs:
        given = everything | without[need]
        task, sets_ = given.pop("task"), given.pop("sets")
        row = method._replace(function=with_signature(never, method.function))
        if method.form == "edit":
            given["target"] = 9.0
        with pytest.raises(ValueError, match=f"needs {need}: give"):
            unlearning.unlearn(task, classification.params, sets_, row, **given)


def with_signature(function, like):
    """Give a function another's signature."""
    function.__signature__ = inspect.signature(like)
    return function


def test_the_table_says_what_a_reader_wants_to_know():
    for name, row in METHODS.items():
        assert row.form in FORMS, name
        assert row.needs <= NEEDS.keys(), name
        assert row.source, name
        assert row.cost, name
        assert isinstance(row.removes, bool)
        # Options without a default cannot be offered by the command.
        assert all(p.default is not p.empty for p in options_of(row).values()), name
        assert all(p.annotation is not p.empty for p in options_of(row).values()), name


def squared(task, *, power: float = 2.0):
    """Go down minus a power of the loss; written by nobody here."""
    forget = Term(lambda params, start, batch: -(task(params, batch) ** power))
    return compose(
        task, forget, forget_weight=1.0, retain_weight=0.0, retain_term="none"
    )


def halved(task, params, sets, *, share: float = 0.5):
    """Shrink everything; written by nobody here."""
    return tree.cast(tree.scaled(1 - share, params), "float32")


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize(
    "row",
    [
        Method("objective", squared, frozenset(), "ours", "a step", True),
        Method("edit", halved, frozenset(), "ours", "nothing", True),
    ],
    ids=["objective", "edit"],
)
def test_a_new_method_is_one_function_and_one_row(request, name, row, monkeypatch):
    monkeypatch.setitem(METHODS, "anew", row)
    world = request.getfixturevalue(name)
    outcome = apply(world, METHODS["anew"], learning_rate=0.1)
    assert outcome.steps > 0
    assert outcome.cost.flops > 0
    with pytest.raises(ValueError, match="beta=0.1 has no effect .* use npo"):
        apply(world, METHODS["anew"], beta=0.1)
    option = "power" if row.form == "objective" else "share"
    with pytest.raises(ValueError, match=f"{option}=1 has no effect .* use anew"):
        apply(world, METHODS["gradient_ascent"], **{option: 1})


def test_an_unknown_method_or_a_setting_without_effect_is_refused(classification):
    task, params, sets = classification[:3]

    def run(method, **given):
        unlearning.unlearn(task, params, sets, method, **given)

    with pytest.raises(ValueError, match="method='magic': one of first_epoch"):
        run("magic", target=1.0)
    with pytest.raises(ValueError, match="scale=0.5 has no effect"):
        run("npo", scale=0.5)
    with pytest.raises(ValueError, match="scale=0.5 has no effect"):
        run("gradient_ascent", scale=0.5, target=1.0)
    with pytest.raises(ValueError, match="recipe=.* has no effect"):
        run("gradient_ascent", recipe=Recipe(), target=1.0)
    with pytest.raises(ValueError, match="target=None: give the forget loss"):
        run("gradient_ascent")
    with pytest.raises(ValueError, match="keep_best='lowest_retain' has no effect"):
        run("npo", keep_best="lowest_retain", target=1.0)
    with pytest.raises(ValueError, match="keep_best='worst': one of highest_forget"):
        run("npo", keep_best="worst")
    with pytest.raises(ValueError, match="evaluate_every=0"):
        run("npo", evaluate_every=0)
    with pytest.raises(ValueError, match="microbatch_size=4"):
        run("npo", recipe=Recipe(microbatch_size=4))
    with pytest.raises(ValueError, match="max_trials=0"):
        run("npo", limits=Limits(max_trials=0))


def test_a_status_is_spelled_as_files_spell_it():
    assert [str(status) for status in Status][:4] == [
        "reached",
        "already",
        "given_scale",
        "applied",
    ]
    assert Status("retain_limit") is Status.RETAIN_LIMIT
