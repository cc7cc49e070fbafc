"""Remove the influence of chosen training examples from a trained JAX/Flax model.

Rooms: :mod:`~jaxunlearn.data`, :mod:`~jaxunlearn.models`, :mod:`~jaxunlearn.tasks`,
:mod:`~jaxunlearn.gradients`, :mod:`~jaxunlearn.training`,
:mod:`~jaxunlearn.influence`, :mod:`~jaxunlearn.unlearning`,
:mod:`~jaxunlearn.evaluation`, :mod:`~jaxunlearn.report`, and
:mod:`~jaxunlearn.tree` for parameter trees. They are imported when first used.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxunlearn import (
        data as data,
    )
    from jaxunlearn import (
        evaluation as evaluation,
    )
    from jaxunlearn import (
        gradients as gradients,
    )
    from jaxunlearn import (
        influence as influence,
    )
    from jaxunlearn import (
        models as models,
    )
    from jaxunlearn import (
        report as report,
    )
    from jaxunlearn import (
        tasks as tasks,
    )
    from jaxunlearn import (
        training as training,
    )
    from jaxunlearn import (
        tree as tree,
    )
    from jaxunlearn import (
        types as types,
    )
    from jaxunlearn import (
        unlearning as unlearning,
    )

__all__ = [
    "data",
    "evaluation",
    "gradients",
    "influence",
    "models",
    "report",
    "tasks",
    "training",
    "tree",
    "types",
    "unlearning",
]


def __getattr__(name: str) -> Any:
    """Import a room when it is first asked for; look the version up likewise."""
    if name == "__version__":
        try:
            return importlib.metadata.version("jaxunlearn")
        except importlib.metadata.PackageNotFoundError:
            return "0+unknown"  # a checkout on the path, not installed
    if name in __all__:
        return importlib.import_module(f"jaxunlearn.{name}")
    raise AttributeError(f"module 'jaxunlearn' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the rooms."""
    return [*__all__, "__version__"]
