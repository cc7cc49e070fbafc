"""One label an example: any network from inputs to logits."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxunlearn.models.cross_entropy import IGNORED_LABEL, losses_of_logits
from jaxunlearn.randomness import pinned
from jaxunlearn.types import Batch, Params

Network = nn.Module | Callable[..., jax.Array]
"""A Linen module, or ``(params, inputs [B,...]) -> logits [B,V]``."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClassificationTask:
    """Cross-entropy of an example's label, in nats; see :func:`classification_task`.

    Attributes:
      network: What gives the logits.
      variables: Frozen collections beside the parameters; leaves of the tree.
      inputs: Where in a batch the inputs are, [B,...].
      labels: Where in a batch the labels are, int32[B].
      options: Keyword arguments of the network's call, by name.
      training_options: The same where a key is given; None has nothing random.
      stacked: Folders of parameters that are stacked over layers.
    """

    network: Network = dataclasses.field(metadata={"static": True})
    variables: Any
    inputs: str = dataclasses.field(metadata={"static": True})
    labels: str = dataclasses.field(metadata={"static": True})
    options: tuple[tuple[str, Any], ...] = dataclasses.field(metadata={"static": True})
    training_options: tuple[tuple[str, Any], ...] | None = dataclasses.field(
        metadata={"static": True}
    )
    stacked: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    @pinned
    def __call__(
        self, params: Params, batch: Batch, *, key: jax.Array | None = None
    ) -> jax.Array:
        """Return the cross-entropy of each example, float32[B]; 0 for padding.

        With ``key`` each example runs alone, its draws from (key, its ``index``).
        """
        if key is None or self.training_options is None:
            return self.loss_of_outputs(self.outputs(params, batch), batch)
        options = dict(self.training_options)
        inputs = jnp.asarray(batch[self.inputs])
        index = jnp.asarray(batch.get("index", jnp.arange(len(inputs))))

        def alone(one: jax.Array, number: jax.Array) -> jax.Array:
            rngs = {"dropout": jax.random.fold_in(key, number)}
            return self.run(params, one[None], {**options, "rngs": rngs})[0]

        return self.loss_of_outputs(jax.vmap(alone)(inputs, index), batch)

    def outputs(self, params: Params, batch: Batch) -> jax.Array:
        """Return the logits, [B,V]."""
        return self.run(params, jnp.asarray(batch[self.inputs]), dict(self.options))

    def targets(self, batch: Batch) -> jax.Array:
        """Return the labels, int32[B]; -100 where the batch has none, or pads."""
        labels = jnp.asarray(batch[self.labels])
        if "index" not in batch:
            return labels
        return jnp.where(jnp.asarray(batch["index"]) < 0, IGNORED_LABEL, labels)

    def loss_of_outputs(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Return the cross-entropy of given logits, float32[B]; convex in them."""
        return losses_of_logits(outputs.astype(jnp.float32), self.targets(batch))

    def run(self, params: Params, inputs: jax.Array, options: dict) -> jax.Array:
        """Return the network's logits."""
        if isinstance(self.network, nn.Module):
            # Linen's apply is typed as returning more than the output.
            logits: Any = self.network.apply(
                {"params": params, **self.variables}, inputs, **options
            )
            return logits
        if self.variables:
            return self.network(params, inputs, variables=self.variables, **options)
        return self.network(params, inputs, **options)


def classification_task(
    network: Network,
    *,
    variables: Mapping[str, Any] | None = None,
    inputs: str = "inputs",
    labels: str = "labels",
    options: Mapping[str, Any] | None = None,
    training_options: Mapping[str, Any] | None = None,
    stacked: Sequence[str] = (),
) -> ClassificationTask:
    """Return the task of a network that gives one label an example.

    ``l_i = -log softmax(network(params, x_i))[y_i]``

    Args:
      network: A Linen module, or ``(params, inputs) -> logits [B,V]``; row i may depend
        on example i only.
      variables: Frozen collections, such as ``{"batch_stats": ...}``. A Linen module
        reads them beside its parameters; a function is given them as ``variables=``.
      inputs: Where in a batch the inputs are, [B,...].
      labels: Where in a batch the labels are, int32[B]; -100 means no label.
      options: Keyword arguments of the network's call, hashable, such as
        ``{"train": False}``.
      training_options: The same where the loss is given a ``key``, such as ``{"train":
        True}``; the network then has ``rngs={"dropout": key of the example}`` too.
        None: the network has nothing random, and a key changes nothing.
      stacked: Folders of parameters whose leaves ``nn.scan`` stacked over layers, so
        that ``layers="^blocks/0/"`` picks one (:func:`jaxunlearn.tree.select`).

    Returns:
      A task that has ``outputs``, ``targets`` and ``loss_of_outputs``; examples of
      ``index`` -1 or label -100 have loss 0.

    Raises:
      ValueError: ``variables`` hold the parameters, or an option is not hashable.

    >>> task = classification_task(lambda params, x: x @ params)
    >>> batch = {"inputs": jnp.ones((2, 3)), "labels": jnp.array([0, -100])}
    >>> task(jnp.zeros((3, 2)), batch).round(3).tolist()
    [0.6930000185966492, 0.0]
    """
    if variables and "params" in variables:
        raise ValueError(
            "variables holds params: give the parameters to the task's call, and only "
            "the other collections here"
        )
    return ClassificationTask(
        network,
        dict(variables or {}),
        inputs,
        labels,
        hashable("options", options or {}),
        None
        if training_options is None
        else hashable("training_options", training_options),
        tuple(stacked),
    )


def hashable(argument: str, options: Mapping[str, Any]) -> tuple:
    """Return options as a value that compiled programs are remembered by."""
    pairs = tuple(sorted(options.items()))
    for name, value in pairs:
        try:
            hash(value)
        except TypeError:
            raise ValueError(
                f"{argument}[{name!r}]={value!r} is not hashable: give numbers, "
                f"strings or tuples; arrays belong into variables"
            ) from None
    return pairs
