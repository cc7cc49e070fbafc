import importlib.util

import jax
import numpy as np
import pytest

from jaxunlearn.models import GPT2Config, load_pretrained
from jaxunlearn.models.checkpoints.huggingface import file_tensors

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch is not installed: pip install 'jaxunlearn[parity]'",
)
EPS = np.finfo(np.float32).eps


ODD = {
    "three heads of five, wide epsilon, exact gelu": dict(
        n_embd=15,
        n_head=3,
        n_inner=23,
        layer_norm_epsilon=1e-3,
        activation_function="gelu",
    ),
    "relu, unscaled attention, few positions": dict(
        n_embd=8,
        n_head=1,
        n_positions=12,
        activation_function="relu",
        scale_attn_weights=False,
    ),
    "one layer, one wide head, narrow feed-forward": dict(
        n_embd=12, n_head=2, n_layer=1, n_inner=1, activation_function="gelu_new"
    ),
    "twelve layers": dict(n_embd=12, n_head=3, n_layer=12),
}


@needs_torch
@pytest.mark.parametrize("options", ODD.values(), ids=ODD.keys())
def test_logits_losses_and_gradients_are_torchs(
    options, batch, tmp_path, value_and_gradient
):
    import torch
    from transformers import GPT2Config as TorchConfig
    from transformers import GPT2LMHeadModel

    shape = dict(vocab_size=97, n_positions=24, n_layer=2) | options
    torch.manual_seed(0)
    reference = GPT2LMHeadModel(
        TorchConfig(**shape, bos_token_id=96, eos_token_id=96)
    ).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    reference.save_pretrained(tmp_path)
    ids, mask, labels = (
        torch.tensor(batch[name]).long()
        for name in ("input_ids", "attention_mask", "labels")
    )
    logits = reference(input_ids=ids, attention_mask=mask).logits
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none"
    ).sum(-1) / (labels[:, 1:] != -100).sum(-1)
    losses.sum().backward()

    model, params = load_pretrained(tmp_path)
    assert model.config == GPT2Config(**shape, bos_token_id=96, eos_token_id=96)
    found, gradient = value_and_gradient(model)(params, batch)
    our_logits = jax.jit(model.logits)(params, batch)
    np.testing.assert_allclose(our_logits, logits.detach(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(found, losses.detach(), rtol=0, atol=1e-4)
    ours = dict(file_tensors(model, gradient))
    for name, parameter in reference.named_parameters():
        ours_leaf = ours.pop(name.removeprefix("transformer."))
        gap = np.linalg.norm(ours_leaf - parameter.grad.numpy())
        assert gap <= 1e-4 * np.linalg.norm(parameter.grad.numpy()), name
    assert not ours


@needs_torch
def test_activations_are_torchs():
    import torch
    from transformers.activations import ACT2FN

    from jaxunlearn.models.gpt2_config import ACTIVATIONS

    x = np.linspace(-6, 6, 101, dtype=np.float32)
    for name, function in ACTIVATIONS.items():
        theirs = ACT2FN[name](torch.tensor(x)).numpy()
        # The rounding of erf or tanh, times x.
        np.testing.assert_allclose(function(x), theirs, atol=6 * EPS, err_msg=name)
