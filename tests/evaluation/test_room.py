import importlib
import types

import pytest

from jaxunlearn import evaluation

ROOMS = "aggregates attacks classification internals membership retrained suite text"


@pytest.mark.parametrize("name", evaluation.__all__)
def test_every_public_name_is_what_it_says(name):
    # Whatever was imported before: a module of the same name must not hide a function.
    importlib.import_module("jaxunlearn.evaluation.suite.scores")
    found = getattr(evaluation, name)
    assert isinstance(found, types.ModuleType) == (name in ROOMS.split())


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="attribute '?forget"):
        _ = evaluation.forget
