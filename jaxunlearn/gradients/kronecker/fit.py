"""K-FAC and EK-FAC: the Fisher matrix in a Kronecker-factored eigenbasis, fitted.

No parameter is left out. A kernel and its bias form one matrix; an axis that tokens
are looked up on, or longer than ``largest_factor`` (a vocabulary), keeps its own
coordinates as its basis, and so do parameters that are no matrix (normalisation).
``inverse.py`` multiplies by the result and its inverse.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxunlearn.gradients.arguments import as_argument
from jaxunlearn.gradients.batching import indexed
from jaxunlearn.gradients.curvature_products import Logits
from jaxunlearn.gradients.kronecker.eigendecomposition import (
    Basis,
    eigenbasis,
    kfac_eigenvalues,
    positive,
)
from jaxunlearn.gradients.kronecker.layout import Matrix
from jaxunlearn.gradients.kronecker.sums import (
    Fit,
    Given,
    Stage,
    first_batch,
    matrices_at,
    over_stack,
    sum_over_data,
)
from jaxunlearn.tree import cast
from jaxunlearn.types import Batch, Params, PerExampleLoss

EIGENBASES = {
    kind: functools.partial(eigenbasis, eigh=kind) for kind in ("float32", "float64")
}
"""By ``eigh``; the same objects each time, so that programs are found again by them."""

LARGEST_FACTOR = 16384
"""The longest axis that gets an eigenbasis: a factor of 1 GB."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KroneckerFactors:
    """``F ~ (Q_L (x) Q_R) diag(Lambda) (Q_L (x) Q_R)^T``, a block for each matrix.

    F is the Fisher matrix of the weighted mean over the examples.

    Attributes:
      bases: Matrix name -> ``(Q_L [*stack,L,L], Q_R [*stack,R,R])``; None: identity.
      eigenvalues: Matrix name -> Lambda, ``float32[*stack,L,R]``.
      weight: The examples' weights summed.
      matrices: Which leaves each matrix is made of.
      method: ``"kfac"`` or ``"ekfac"``.
      fisher: ``"empirical"`` or ``"true"``.
      layers: The expression that selected the leaves; None is all.
    """

    bases: dict[str, Basis]
    eigenvalues: dict[str, jax.Array]
    weight: jax.Array
    matrices: tuple[Matrix, ...] = dataclasses.field(metadata={"static": True})
    method: str = dataclasses.field(metadata={"static": True})
    fisher: str = dataclasses.field(metadata={"static": True})
    layers: str | None = dataclasses.field(metadata={"static": True})


def fit_kfac(
    loss: PerExampleLoss,
    params: Params,
    batch_or_batches: Batch | Iterable[Batch],
    *,
    layers: str | None = None,
    batch_size: int | None = None,
    fisher: str = "empirical",
    key: jax.Array | None = None,
    logits: Logits | None = None,
    largest_factor: int = LARGEST_FACTOR,
    eigh: str = "float32",
    state_path: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> KroneckerFactors:
    """Return K-FAC factors of the Fisher matrix: ``F ~ A (x) S`` for each layer.

    With l the input and r the gradient of the output at each token,
    ``A = sum_bt w_b l l^T / sum_bt w_b`` is a mean over tokens and
    ``S = sum_bt w_b r r^T / sum_b w_b`` a mean over examples, so that ``A (x) S`` has
    the scale of F itself (both per token, as some libraries take them, is F divided by
    the mean number of tokens). Tokens without gradient, such as padding, do not count.

    Args:
      loss: Per-example loss; see :func:`~.taps.statistics.layer_taps`.
      params: The point; differentiated as its float32 copy.
      batch_or_batches: A batch, or batches of one shape that can be iterated again;
        ``weight``, where present, weighs the examples.
      layers: Expression of the leaves to cover; None is all.
      batch_size: Examples in memory at a time; the result does not depend on it.
      fisher: ``"empirical"``, the labels of the data; or ``"true"``, labels drawn once
        from the model, with ``key``.
      key: Draws the labels, together with each example's ``index``.
      logits: ``(params, batch) -> float32[B,...,V]`` for the draw; None takes the
        outputs of the task, or of the model whose method ``loss`` is.
      largest_factor: Axes longer than this take the identity as their basis.
      eigh: ``"float32"``; or ``"float64"`` on the host.
      state_path: A name for the files that a killed fit goes on from, ``.moments.npz``
        and ``.eigenvalues.npz`` added to it.
      progress: Called with (batches done, batches in all; 0 if unknown), for each pass.

    Returns:
      Factors; with ``kronecker_vp`` a linear map, with ``kronecker_inverse_vp`` the
      inverse.

    Raises:
      ValueError: An option is none of the above; batches can be iterated only once;
        no ``key`` or, over several batches, no ``index`` for ``fisher="true"``.

    Cost: a forward and a backward pass without weight gradients, and a layer's
    ``T(L^2 + R^2)`` flops an example. With one batch and neither ``state_path`` nor
    ``progress`` it is a pure function of arrays that the caller may compile.
    Martens and Grosse, Optimizing neural networks with Kronecker-factored approximate
    curvature, https://arxiv.org/abs/1503.05671; for the tokens, "expand" of Eschenhagen
    et al., https://arxiv.org/abs/2311.00636.
    """
    given = None if logits is None else as_argument(logits)
    options = (layers, batch_size, fisher, largest_factor, eigh, "kfac")
    fit = Fit(as_argument(loss), given, *options)
    return fitted(fit, params, batch_or_batches, key, state_path, progress)


def fit_ekfac(
    loss: PerExampleLoss,
    params: Params,
    batch_or_batches: Batch | Iterable[Batch],
    *,
    layers: str | None = None,
    batch_size: int | None = None,
    fisher: str = "empirical",
    key: jax.Array | None = None,
    logits: Logits | None = None,
    largest_factor: int = LARGEST_FACTOR,
    eigh: str = "float32",
    state_path: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> KroneckerFactors:
    """Return EK-FAC factors: K-FAC's eigenbasis with the true variances in it.

    ``Lambda = sum_b w_b (Q_L^T G_b Q_R)^2 / sum_b w_b`` entry by entry, G_b the whole
    gradient of example b, so of a tied embedding the sum of both its parts.

    Args and errors are those of :func:`fit_kfac`.

    Cost: two passes. The second rotates tokens, ``2T(L^2 + R^2)`` flops an example and
    layer, and forms gradients ``2TLR``, in the rotated basis alone.
    George et al., https://arxiv.org/abs/1806.03884.
    """
    given = None if logits is None else as_argument(logits)
    options = (layers, batch_size, fisher, largest_factor, eigh, "ekfac")
    fit = Fit(as_argument(loss), given, *options)
    return fitted(fit, params, batch_or_batches, key, state_path, progress)


def fitted(
    fit: Fit,
    params: Params,
    batch: Batch | Iterable[Batch],
    key: jax.Array | None,
    state_path: Path | str | None,
    progress: Callable[[int, int], None] | None,
) -> KroneckerFactors:
    """Return the factors of the moments; of EK-FAC, after a second pass."""
    first = first_batch(batch)
    if fit.fisher != "true" and not (key is None and fit.logits is None):
        raise ValueError(
            f"key and logits do not go with fisher={fit.fisher!r}, which draws no "
            f'labels: leave them out, or take fisher="true"'
        )
    if fit.fisher == "true":
        if key is None:
            raise ValueError(
                'fisher="true" draws labels from the model: give key=jax.random.key(0)'
            )
        if not isinstance(batch, Mapping) and "index" not in first:
            raise ValueError(
                'fisher="true" over several batches needs their "index": the draw of '
                "an example's labels is a function of key and index"
            )
        if isinstance(batch, Mapping):
            batch = indexed(batch)
    params = cast(params, jnp.float32)
    matrices = matrices_at(fit.loss, params, first, fit.layers)
    sums = sum_over_data(
        Stage(fit, matrices, "moments"),
        Given(params, {}, key),
        batch,
        state_path,
        progress,
    )
    weight, places = sums["weight"], sums["matrices"]
    find = EIGENBASES.get(fit.eigh) or functools.partial(eigenbasis, eigh=fit.eigh)
    bases = {m.name: over_stack(m, find, places[m.name]) for m in matrices}
    if fit.method == "kfac":
        of_layer = Partial(kfac_eigenvalues, weight=weight)
        eigenvalues = {
            m.name: over_stack(m, of_layer, places[m.name], bases[m.name])
            for m in matrices
        }
    else:
        sums = sum_over_data(
            Stage(fit, matrices, "eigenvalues"),
            Given(params, bases, key),
            batch,
            state_path,
            progress,
        )
        share = 1.0 / positive(weight)
        eigenvalues = {name: share * x for name, x in sums["matrices"].items()}
    return KroneckerFactors(
        bases, eigenvalues, weight, matrices, fit.method, fit.fisher, fit.layers
    )
