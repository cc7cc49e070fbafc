"""A wrapped language task on disk: two models, and what is made of them.

``wrapper.json`` (which wrapper, and its options), ``own/`` (the model as it was) and
``reinforced/`` (the one whose additions are subtracted), each in Hugging Face's layout,
``config.json`` and the tokenizer. No weights stand at the top, so that nothing that
knows no wrapper takes the bare model for this one.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

from jaxunlearn.folders import file_names, replaced_folder, write_checksums
from jaxunlearn.models import load_pretrained, save_pretrained
from jaxunlearn.models.checkpoints.saving import came_from, write_beside_weights
from jaxunlearn.sealed import read_sealed, typed, write_sealed
from jaxunlearn.tasks import language_task
from jaxunlearn.types import Params
from jaxunlearn.unlearning.wrappers.decoders import OWN, REINFORCED
from jaxunlearn.unlearning.wrappers.offset import OffsetTask

WRAPPER = "wrapper.json"
"""The file by which a folder is known for a wrapper's."""

OFFSET = "offset"


@dataclasses.dataclass(frozen=True)
class Description:
    """What ``wrapper.json`` says.

    Attributes:
      wrapper: Its name; ``"offset"`` is :class:`~.offset.OffsetTask`.
      alpha: Strength of the offset.
    """

    wrapper: str
    alpha: float


def save_wrapper(
    task: OffsetTask,
    params: Params,
    path: str | Path,
    tokenizer: Any = None,
    *,
    source: str | Path | None = None,
) -> None:
    """Write a wrapped language task, for :func:`load_wrapper` and for evaluation.

    Whoever has the folder has the forgotten: the first model's weights are as they
    were, and the second one knows it even better.

    Args:
      task: What :func:`~jaxunlearn.unlearning.wrappers.offset.whp` returned for a
        language task.
      params: Parameters of the task.
      path: The directory; only an earlier wrapper there is replaced, and whole.
      tokenizer: Any object with Hugging Face's ``save_pretrained(directory)``.
      source: What the model was loaded from; as for
        :func:`~jaxunlearn.models.save_pretrained`.

    Raises:
      ValueError: The task is no wrapped language task, the parameters are not its
        model's, or ``path`` holds something else.
    """
    model = getattr(getattr(task, "task", None), "model", None)
    if not isinstance(task, OffsetTask) or model is None:
        raise ValueError(
            f"task={type(task).__name__}: only what whp returned for a language task "
            f"is written; another is made anew from its function"
        )
    path = Path(path)
    if path.exists() and not is_wrapper(path):
        if not path.is_dir() or any(path.iterdir()):
            raise ValueError(
                f"path={str(path)!r} holds something else: give a directory that is "
                f"empty or not there"
            )
    beside = came_from(source)
    with replaced_folder(path) as fresh:
        write_beside_weights(fresh, model.config, params, tokenizer, beside)
        save_pretrained(model, params, fresh / OWN)
        save_pretrained(model, task.reinforced, fresh / REINFORCED)
        told = Description(OFFSET, float(task.alpha))
        write_sealed(fresh / WRAPPER, dataclasses.asdict(told))
        write_checksums(fresh, file_names(fresh))


def is_wrapper(path: str | os.PathLike[str]) -> bool:
    """Say whether a directory is one of :func:`save_wrapper`."""
    return (Path(path) / WRAPPER).is_file()


def load_wrapper(path: str | Path) -> tuple[OffsetTask, Params]:
    """Return the task and the parameters that :func:`save_wrapper` wrote.

    :func:`~jaxunlearn.unlearning.wrappers.decoders.offset_decoder` makes of them a
    model and parameters that generate.

    Raises:
      FileNotFoundError: There is no wrapper.
      ValueError: A file is damaged, or the wrapper is of a later version.

    Cost: two models in memory.
    """
    path = Path(path)
    if not is_wrapper(path):
        raise FileNotFoundError(f"{path} holds no {WRAPPER}, so it is no wrapper's")
    told = read_sealed(
        path / WRAPPER,
        lambda found: typed(found, Description),
        remedy="restore it, or make the wrapper again",
    )
    if told.wrapper != OFFSET:
        raise ValueError(
            f"{path / WRAPPER} is of the wrapper {told.wrapper!r}: this version knows "
            f"{OFFSET!r}"
        )
    model, params = load_pretrained(path / OWN)
    other, reinforced = load_pretrained(path / REINFORCED)
    if model != other:
        raise ValueError(
            f"{path / OWN} and {path / REINFORCED} hold models of different "
            f"configurations: restore them, or make the wrapper again"
        )
    return OffsetTask(language_task(model), reinforced, told.alpha), params
