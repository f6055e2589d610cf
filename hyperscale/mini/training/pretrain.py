"""Trains the base of the built-in model from scratch."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from hyperscale.mini.training.data import KINDS
from hyperscale.retrofit.attention.masks import PackingMasks
from hyperscale.retrofit.attention.packed_attention import compile_layers, use_packed_attention
from hyperscale.retrofit.packing import TrainingBatch


def optimizers(model: Any, muon_lr: float, adam_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    vectors = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=muon_lr, momentum=0.95, nesterov=True, weight_decay=0.0),
        torch.optim.AdamW(vectors, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def train(
    model: Any,
    batches: Iterator[TrainingBatch],
    steps: int,
    *,
    muon_lr: float = 0.02,
    adam_lr: float = 3e-3,
    warmup: int = 100,
    report: Callable[[str], None] = print,
) -> int:
    """Next-token training on chains and replies; the learning rate is constant, then falls to zero over the last half.

    Returns:
        Tokens seen.
    """
    device = next(model.parameters()).device
    use_packed_attention(model)
    model.train()
    if device.type == "cuda":
        compile_layers(model)
    opts = optimizers(model, muon_lr, adam_lr)
    base = [[g["lr"] for g in o.param_groups] for o in opts]
    tokens, start = 0, time.monotonic()
    for step in range(1, steps + 1):
        # Rises over the warm-up, is constant, and falls to zero over the last half.
        scale = min(1.0, step / warmup, 2.0 * (1.0 - (step - 1) / steps))
        for opt, rates in zip(opts, base, strict=True):
            for group, rate in zip(opt.param_groups, rates, strict=True):
                group["lr"] = rate * scale
        batch = next(batches).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(
                input_ids=batch.ids,
                position_ids=batch.position,
                masks=PackingMasks.build(batch.document),
                use_cache=False,
            ).logits
        # The last place of a row gets the first token as its next one; its weight is 0.
        following = torch.roll(batch.ids, -1, 1)
        losses = cross_entropy(logits.flatten(0, 1).float(), following.flatten(), reduction="none")
        losses = losses.view_as(batch.weight)  # (rows, length)
        loss = (losses * batch.weight).sum() / batch.weight.sum().clamp_min(1.0)
        loss.backward()  # type: ignore[no-untyped-call]
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        tokens += batch.ids.numel()
        if step % 100 == 0 or step in (1, 10, steps):
            kinds = [((losses * batch.weight)[batch.kind == i].sum() / batch.weight[batch.kind == i].sum()).item()
                     for i in range(len(KINDS))]  # fmt: skip
            report(
                f"{time.monotonic() - start:5.0f} s  step {step:5d}  loss {loss.item():.4f}  "
                + "  ".join(f"{k} {v:.4f}" for k, v in zip(KINDS, kinds, strict=True))
            )
    return tokens
