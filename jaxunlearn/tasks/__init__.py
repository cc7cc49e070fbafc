"""A network, its loss and its labels as one value: a :class:`~jaxunlearn.types.Task`.

One file a kind of task. A task is a per-example loss: whatever takes a loss takes it.
A new kind is one more row in the table of ``tests/tasks/test_laws.py``, and passes.
"""

from jaxunlearn.tasks.classification import ClassificationTask, classification_task
from jaxunlearn.tasks.language import LanguageTask, language_task

__all__ = [
    "ClassificationTask",
    "LanguageTask",
    "classification_task",
    "language_task",
]
