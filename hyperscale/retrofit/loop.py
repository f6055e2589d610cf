"""The DMS retrofit: a model learns, in about a thousand steps, which tokens each KV head can do without.

Recipe of arXiv 2506.05345, section 3: the student starts as the teacher, all weights train, the logits are distilled,
Gumbel-sigmoid gates decide, verdicts take effect after a window, and a one-sided loss pulls the mean eviction up to
``1 - 1 / CR(t)`` with CR rising linearly. One departure, off by setting ``hard_steps=0``: a checkpoint is finished by a
phase with the hard gates of inference (see `hyperscale.retrofit.check` for why).
"""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from hyperscale.methods.gate import GateConfig
from hyperscale.retrofit.attention import Packed, compile_layers, use_packed_attention
from hyperscale.retrofit.gates import GatedModel
from hyperscale.retrofit.losses import compression, distillation, savings, scheduled_cr


class TrainingBatch(Protocol):
    """Rows of packed documents; see `hyperscale.mini.data.Batch` for an implementation."""

    ids: Tensor
    position: Tensor
    document: Tensor
    kind: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Recipe:
    """Settings of a retrofit.

    Attributes:
        targets: Compression ratios to leave a checkpoint at, ascending.
        steps_per_unit: Steps in which CR(t) rises by one.
        hard_steps: Steps with hard gates that finish each checkpoint; only the weights train.
        window: w of the delayed eviction.
        lr: Learning rate of the weights (AdamW).
        gate_lr: Learning rate of the projections; their output is scaled by 100.
        warmup: Steps over which the learning rate rises.
        clip: Norm the gradients are clipped to.
        ledger: Ask for the ratio in what the ledger counts, reads and entries held at the end, the window counted
            (`hyperscale.retrofit.losses.savings`); otherwise in evicted tokens, the paper's loss.
        reach: Share of the nominal ratio that is asked for; 1 is the paper's.
        groups: Number of kinds of data, each pulled to the target by itself; 1 is the paper's loss.
        seed: Seed of the gates' noise.
    """

    targets: tuple[float, ...] = (2.0, 4.0, 8.0)
    steps_per_unit: float = 100.0
    hard_steps: int = 150
    window: int = 16
    lr: float = 3e-4
    gate_lr: float = 3e-5
    warmup: int = 20
    clip: float = 1.0
    ledger: bool = False
    reach: float = 1.0
    groups: int = 1
    seed: int = 0


@dataclass
class Finished:
    """A checkpoint at one compression ratio; the retrofit's student holds its weights until the next one is asked for.

    Attributes:
        cr: The ratio it was trained to.
        model: The student, gates attached.
        config: The gates' settings.
        steps: Optimiser steps it has seen, the hard phase included.
        tokens: Tokens it has seen, the hard phase included.
        log: One entry per logged step: step, mode, cr, kl, and alpha of each group (with ``ledger``, its share of reads
            saved).
    """

    cr: float
    model: Any
    config: GateConfig
    steps: int
    tokens: int
    log: list[dict[str, Any]]


class Retrofit:
    """Trains one student against its teacher.

    Args:
        teacher: The original model, a transformers causal LM on its device; it is frozen, not changed.
        recipe: Settings.
        report: Called with a line of text now and then.
    """

    def __init__(self, teacher: Any, recipe: Recipe, *, report: Callable[[str], None] = print) -> None:
        self.recipe, self.report = recipe, report
        self.device = next(teacher.parameters()).device
        torch.manual_seed(recipe.seed)
        student = copy.deepcopy(teacher).train()
        self.teacher = teacher.eval().requires_grad_(False)
        self.gated = GatedModel(student, GateConfig(window=recipe.window, cr=recipe.targets[-1]))
        student.requires_grad_(True)
        for model in (self.teacher, student):
            use_packed_attention(model)
            if self.device.type == "cuda":
                compile_layers(model)
        self.steps = self.tokens = 0
        self.log: list[dict[str, Any]] = []
        self._started = time.monotonic()

    def run(self, batches: Iterator[TrainingBatch]) -> Iterator[Finished]:
        """Train; yield a finished checkpoint at each target ratio."""
        r = self.recipe
        optimizer = self._optimizer(gates=True)
        for cr in r.targets:
            until = round((cr - 1.0) * r.steps_per_unit)
            while self.steps < until:
                self.steps += 1
                now = scheduled_cr(self.steps, r.steps_per_unit, r.targets[-1])
                self._step(optimizer, next(batches), now, min(1.0, self.steps / r.warmup))
            # The hard phase is a branch: the gates go on learning from where they were.
            trunk = copy.deepcopy(self.gated.model.state_dict()), self.steps, self.tokens, list(self.log)
            self._harden(cr, batches)
            config = replace(self.gated.config, cr=cr)
            yield Finished(cr, self.gated.model, config, self.steps, self.tokens, list(self.log))
            weights, self.steps, self.tokens, self.log = trunk
            self.gated.model.load_state_dict(weights)

    def _harden(self, cr: float, batches: Iterator[TrainingBatch]) -> None:
        """Train the weights alone with the gates of inference, the learning rate falling to zero."""
        optimizer = self._optimizer(gates=False)
        self.gated.mode = "hard"
        for step in range(self.recipe.hard_steps):
            self.steps += 1
            warm = min(1.0, (step + 1) / self.recipe.warmup)
            self._step(optimizer, next(batches), cr, min(warm, 1.0 - step / self.recipe.hard_steps))
        self.gated.mode = "noisy"

    def _optimizer(self, *, gates: bool) -> torch.optim.Optimizer:
        r = self.recipe
        groups = [{"params": self.gated.weight_parameters(), "lr": r.lr, "base_lr": r.lr}]
        if gates:
            groups.append({"params": self.gated.gate_parameters(), "lr": r.gate_lr, "base_lr": r.gate_lr})
        return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=self.device.type == "cuda")

    def _step(self, optimizer: torch.optim.Optimizer, batch: TrainingBatch, cr: float, lr_scale: float) -> None:
        r = self.recipe
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * lr_scale
        kl, alphas = self.divergence(batch)
        kind = batch.kind.to(self.device)
        group_of = kind if r.groups > 1 else torch.where(kind >= 0, 0, -1)
        target = max(0.0, 1.0 - 1.0 / (r.reach * cr))
        counted: tuple[Tensor, ...] = ()
        if r.ledger:
            counted = savings(batch.document.to(self.device), batch.weight.to(self.device), r.window)
        short, share = compression(alphas, target, group_of, r.groups, *counted)
        loss = kl + short if self.gated.mode == "noisy" else kl
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], r.clip)
        optimizer.step()
        self.gated.model.zero_grad(set_to_none=True)
        self.tokens += batch.ids.numel()
        if self.steps % 25 == 0 or self.steps == 1:
            means: list[float] = share[:, 0].tolist()
            self.log.append({"step": self.steps, "mode": self.gated.mode, "cr": cr, "kl": kl.item(), "alpha": means})
            self.report(
                f"{time.monotonic() - self._started:5.0f} s  step {self.steps:5d} {self.gated.mode:5s}  CR {cr:5.2f}  "
                f"KL {kl.item():.5f}  alpha {' '.join(f'{a:.3f}' for a in means)}"
            )

    def divergence(self, batch: TrainingBatch) -> tuple[Tensor, list[Tensor]]:
        """KL of the student against the teacher on one batch, and the verdicts of its layers."""
        inputs = {
            "input_ids": batch.ids.to(self.device),
            "position_ids": batch.position.to(self.device),
            "packed": Packed.build(batch.document.to(self.device), self.recipe.window),
        }
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            with torch.no_grad():
                wanted = self.teacher(**inputs, use_cache=False).logits
            found = self.gated.forward(**inputs)
        return distillation(found, wanted, batch.weight.to(self.device)), self.gated.alphas
