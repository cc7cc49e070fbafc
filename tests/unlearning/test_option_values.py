"""No option of any method takes nonsense: it is refused by name before any work."""

import types
import typing

import jax.numpy as jnp
import pytest

from jaxunlearn.training import Recipe
from jaxunlearn.unlearning import METHODS, Limits, Sets, runner, unlearn
from jaxunlearn.unlearning.requirements import check_kind, options_of, walks

NAN, INF = float("nan"), float("inf")
NONSENSE = {
    int: (-1, 1.5, NAN, "7", True),
    float: (NAN, INF, -INF, -0.5, "0.1", True),
    typing.Literal: ("magic",),
    tuple: ((), (0,), (-1,), (1.5,), "1"),
}
"""What no option of a kind may be, where MEANT does not say otherwise."""

MEANT = {
    ("simnpo", "delta", -0.5): "a loss may be below 0 where outcomes are dense",
}
"""Values that are right although they look wrong, and why."""


def kinds_of(annotation):
    """The kinds that an annotation allows."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return typing.get_args(annotation)
    return (annotation,)


def cases():
    """Every (method, option, value) that has to be refused."""
    for method, row in METHODS.items():
        for name, parameter in options_of(row).items():
            for kind in kinds_of(parameter.annotation):
                for value in NONSENSE.get(typing.get_origin(kind) or kind, ()):
                    if (method, name, value) not in MEANT:
                        yield method, name, value
        if row.form == "edit" and not walks(row):
            yield from ((method, "scale", value) for value in (NAN, INF, 0.0, -0.5))
        if row.form in ("objective", "edit"):
            yield from ((method, "target", value) for value in (NAN, INF))
        if row.form != "exact":
            for name in ("max_retain_nats", "max_relative_step"):
                yield from ((method, name, value) for value in (NAN, -0.5))
        if row.form == "objective":
            yield from ((method, "evaluate_every", value) for value in (0, -1))


class Untouched:
    """A task that nobody may ask for anything."""

    stacked = ()

    def __call__(self, params, batch, *, key=None):
        raise AssertionError("work was done")

    outputs = targets = loss_of_outputs = states = __call__


@pytest.fixture
def world(tmp_path, monkeypatch):
    """What every method needs, none of which can be worked on."""
    monkeypatch.setattr(runner, "training_step_flops", lambda run: 0.0)
    # Whether run and examples go together is asked elsewhere.
    for check in ("check_run", "check_fit", "check_origin", "check_examples"):
        monkeypatch.setattr(runner, check, lambda *_: None)
    run = types.SimpleNamespace(
        recipe=Recipe(epochs=2, batch_size=2),
        data=types.SimpleNamespace(examples=[None] * 4),
        directory=tmp_path,
        recording=None,
        model=None,
        start=None,
    )
    batch = {"index": jnp.arange(2)}
    params = {"wte": {"embedding": jnp.ones((3, 2))}}
    return params, Sets([batch], [batch], [batch]), run


CASES = list(cases())


@pytest.mark.parametrize(("method", "name", "value"), CASES)
def test_nonsense_is_refused_by_name_before_any_work(method, name, value, world):
    params, sets, run = world
    row = METHODS[method]
    given = {"run": run, "indices": [0]} if "run" in row.needs else {}
    if row.form in ("objective", "edit"):
        given["target"] = 9.0
    if name in Limits._fields:
        given["limits"] = Limits()._replace(**{name: value})
    else:
        given[name] = value
    with pytest.raises(ValueError, match=r"\S") as error:
        unlearn(Untouched(), params, sets, method, **given)
    texts = [value, list(value)] if isinstance(value, tuple) else [value]
    starts = tuple(f"{name}={text!r}" for text in texts)
    assert str(error.value).startswith(starts)
    assert len(str(error.value).split()) > 3  # the remedy


def test_every_option_has_a_kind_that_is_tried():
    tried = {(method, name) for method, name, _ in CASES}
    for method, row in METHODS.items():
        assert {(method, name) for name in options_of(row)} <= tried


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (1, float),
        (jnp.float32(0.5), float),
        (jnp.int32(3), int),
        (None, float | None),
        ([1, 2], tuple[int, ...]),
        ("kl", typing.Literal["nll", "kl"]),
        (object(), object),
    ],
)
def test_a_value_of_its_kind_passes(value, annotation):
    check_kind("option", value, annotation)
