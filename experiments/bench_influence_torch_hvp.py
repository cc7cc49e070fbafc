"""A Hessian-vector product in torch, for bench_influence.py: two backward passes.

Run by the peers' Python, beside their ``common.py``: all parameters, 80 sequences in
batches. Attention is written out, because torch's fused kernels have no second
derivative.
"""

import sys

import common

size = int(sys.argv[1]) if len(sys.argv) > 1 else 16
timer = common.Timer("torch_hvp")
import torch  # noqa: E402

timer.mark("import")
model = common.make_model("eager")
tokens = torch.cat(common.make_data())
parameters = list(model.parameters())
torch.manual_seed(0)
vector = [torch.randn_like(p) for p in parameters]
timer.mark("setup")


def run():
    total = [torch.zeros_like(p) for p in parameters]
    for ids in tokens.split(size):
        logits = model(ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.size(-1)), ids[:, 1:].reshape(-1), reduction="sum"
        )
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        product = torch.autograd.grad(gradient, parameters, vector)
        for sum_, part in zip(total, product, strict=True):
            sum_ += part
    return total


timer.warm(run)
timer.finish(None, bs=size)
