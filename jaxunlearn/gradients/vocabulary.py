"""Tokens that a language model does not know, refused before they turn into NaN."""

from collections.abc import Callable, Iterable

import numpy as np

from jaxunlearn.gradients.arguments import told_by
from jaxunlearn.types import Batch


def check_tokens(name: str, loss: Callable, batches: Iterable[Batch]) -> None:
    """Refuse batches with tokens beyond the vocabulary of the model.

    Args:
      name: What the batches are called.
      loss: A loss; of a task or model that has ``vocabulary``, how many tokens there
        are. Of any other nothing is asked.
      batches: Batches; what has no ``input_ids`` passes, and so does padding.

    Raises:
      ValueError: Names the batch, the token and the remedy.

    Cost: one look at the tokens on the host.
    """
    size = told_by(loss, "vocabulary", int)
    if size is None:
        return
    for number, batch in enumerate(batches):
        if "input_ids" not in batch:
            continue
        ids = np.asarray(batch["input_ids"])
        wrong = (ids < 0) | (ids >= size)
        if "attention_mask" in batch:
            wrong &= np.asarray(batch["attention_mask"]) > 0
        if wrong.any():
            raise ValueError(
                f"{name}: batch {number} holds the token {ids[wrong][0]}, and the "
                f"model knows 0 to {size - 1}: tokenize with the model's own tokenizer"
            )
