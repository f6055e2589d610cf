"""The retrofit: a model learns, in about a thousand steps, which tokens each KV head can do without, or merge.

Recipe of arXiv 2506.05345, section 3: the student starts as the teacher, all weights train, the logits are distilled,
Gumbel-sigmoid gates decide, verdicts take effect after a window, and a one-sided loss pulls the mean eviction up to
``1 - 1 / CR(t)`` with CR rising linearly. One departure, off by setting ``hard_steps=0``: a checkpoint is finished by a
phase with the hard gates of inference (see `hyperscale.retrofit.gate_check` for why). DMC (arXiv 2403.09636) is
trained in the same way.
"""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hyperscale.methods.core.dmc_merge import MergeConfig
from hyperscale.methods.core.dms_gate import GateConfig
from hyperscale.retrofit.gated_model import GatedModel
from hyperscale.retrofit.losses import compression, distillation, distillation_in_parts, savings, scheduled_cr
from hyperscale.retrofit.optimizer import StochasticAdamW, park
from hyperscale.retrofit.packed_attention import Packed, checkpoint_layers, compile_layers, use_packed_attention
from hyperscale.retrofit.packing import TrainingBatch
from hyperscale.retrofit.recipe import Recipe

#: Seconds after which a line is reported even if no step is due to be logged.
INTERVAL = 30.0


@dataclass
class Finished:
    """A checkpoint at one compression ratio; the retrofit's student holds its weights until the next one is asked for.

    Attributes:
        cr: The ratio it was trained to.
        model: The student, gates attached.
        config: The gates' settings.
        steps: Optimiser steps it has seen, the hard phase included.
        tokens: Tokens it has seen, the hard phase included.
        log: One entry per logged step: step, mode, cr, kl (what was minimised, both directions if ``symmetric``), and
            alpha of each group (with ``ledger``, its share of reads saved).
    """

    cr: float
    model: Any
    config: GateConfig | MergeConfig
    steps: int
    tokens: int
    log: list[dict[str, Any]]


class Retrofit:
    """Trains one student against its teacher.

    Args:
        teacher: The original model, a transformers causal LM on its device; it is frozen, not changed.
        recipe: Settings.
        report: Called with a line of text now and then.
        dtype: Of the student's weights and gradients, the teacher's by default. The moments of AdamW are float32
            whatever it is; bfloat16 weights are rounded stochastically.
        frugal: Keep a layer's input instead of its activations, and compute the loss in parts. Slower, the same result.
    """

    def __init__(
        self,
        teacher: Any,
        recipe: Recipe,
        *,
        report: Callable[[str], None] = print,
        dtype: torch.dtype | None = None,
        frugal: bool = False,
    ) -> None:
        self.recipe, self.report, self.frugal = recipe, report, frugal
        self.device = next(teacher.parameters()).device
        torch.manual_seed(recipe.seed)
        student = copy.deepcopy(teacher).train()
        if dtype is not None:
            for parameter in student.parameters():
                parameter.data = parameter.data.to(dtype)
        self.teacher = teacher.eval().requires_grad_(False)
        self.gated = GatedModel(student, recipe.gates())
        # A mean is seen by its newest token whatever comes next, and by no later one once the next is merged into it.
        self.window = 0 if recipe.method == "dmc" else recipe.window
        student.requires_grad_(True)
        for model in (self.teacher, student):
            use_packed_attention(model)
            if self.device.type == "cuda":
                compile_layers(model)
        if frugal:
            checkpoint_layers(student)
        self.steps = self.tokens = 0
        self.log: list[dict[str, Any]] = []
        self._started = self._spoke = time.monotonic()

    def run(self, batches: Iterator[TrainingBatch]) -> Iterator[Finished]:
        """Train; yield a finished checkpoint at each target ratio."""
        r = self.recipe
        self._fade(batches)
        optimizer = self._optimizer(gates=True)
        for cr in r.targets:
            until = r.fade_steps + round((cr - 1.0) * r.steps_per_unit)
            while self.steps < until:
                self.steps += 1
                rising = self.steps - r.fade_steps
                now = scheduled_cr(rising, r.steps_per_unit, r.targets[-1])
                self._step(optimizer, batches, now, min(1.0, rising / r.warmup))
            # The hard phase is a branch: the gates go on learning from where they were.
            last = cr == r.targets[-1]
            weights = {} if last else {k: v.to("cpu", copy=True) for k, v in self.gated.model.state_dict().items()}
            trunk = self.steps, self.tokens, list(self.log)
            park(optimizer, "cpu")
            self._harden(cr, batches)
            config = replace(self.gated.config, cr=cr)
            yield Finished(cr, self.gated.model, config, self.steps, self.tokens, list(self.log))
            self.steps, self.tokens, self.log = trunk
            if not last:
                self.gated.model.load_state_dict(weights)
                park(optimizer, self.device)

    def _fade(self, batches: Iterator[TrainingBatch]) -> None:
        """Fade borrowed neurons out: in attention, and where they are made, so that logits start at their offset."""
        if self.gated.separate:
            return
        optimizer = self._optimizer(gates=False)
        self.gated.mode = "off"
        count = self.recipe.fade_steps
        for step in range(count):
            self.steps += 1
            self.gated.left = 1.0 - step / count
            self._step(optimizer, batches, 1.0, min(1.0, (step + 1) / self.recipe.warmup))
            # The factors multiply up to 1 - t / n_t, and to 0 at the end.
            self.gated.fade(1.0 - 1.0 / (count - step))
        self.gated.left, self.gated.mode = 0.0, "noisy"
        self.gated.fade(0.0)

    def _harden(self, cr: float, batches: Iterator[TrainingBatch]) -> None:
        """Train the weights alone with the gates of inference, the learning rate falling to zero."""
        optimizer = self._optimizer(gates=False)
        self.gated.mode = "hard"
        steps = self.recipe.hard_steps_at(cr)
        for step in range(steps):
            self.steps += 1
            warm = min(1.0, (step + 1) / self.recipe.warmup)
            self._step(optimizer, batches, cr, min(warm, 1.0 - step / steps))
        self.gated.mode = "noisy"

    def _optimizer(self, *, gates: bool) -> torch.optim.Optimizer:
        r = self.recipe
        groups = [{"params": self.gated.weight_parameters(), "lr": r.lr, "base_lr": r.lr}]
        if gates and self.gated.separate:
            groups.append({"params": self.gated.gate_parameters(), "lr": r.gate_lr, "base_lr": r.gate_lr})
        if next(self.gated.model.parameters()).dtype == torch.bfloat16:
            return StochasticAdamW(groups, betas=(0.9, 0.95))
        return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=self.device.type == "cuda")

    def _step(
        self, optimizer: torch.optim.Optimizer, batches: Iterator[TrainingBatch], cr: float, lr_scale: float
    ) -> None:
        r = self.recipe
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * lr_scale
        kl, means = 0.0, [0.0] * r.groups
        logged = self.steps % 25 == 0 or self.steps == 1
        late = time.monotonic() - self._spoke > INTERVAL
        for _ in range(r.accumulate):
            loss, divergence, share = self._losses(next(batches), cr)
            (loss / r.accumulate).backward()  # type: ignore[no-untyped-call]
            if logged or late:
                kl += divergence.item() / r.accumulate
                means = [a + b / r.accumulate for a, b in zip(means, share[:, 0].tolist(), strict=True)]
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], r.clip)
        optimizer.step()
        self.gated.model.zero_grad(set_to_none=True)
        if logged:
            self.log.append({"step": self.steps, "mode": self.gated.mode, "cr": cr, "kl": kl, "alpha": means})
        if logged or late:
            self._spoke = time.monotonic()
            self.report(
                f"{self._spoke - self._started:5.0f} s  step {self.steps:5d} {self.gated.mode:5s}  CR {cr:5.2f}  "
                f"KL {kl:.5f}  alpha {' '.join(f'{a:.3f}' for a in means)}"
            )

    def _losses(self, batch: TrainingBatch, cr: float) -> tuple[Tensor, Tensor, Tensor]:
        """What is minimised, the divergence in it, and the share saved by group and axis."""
        r = self.recipe
        kl, alphas = self.divergence(batch, r.symmetric)
        kind = batch.kind.to(self.device)
        group_of = kind if r.groups > 1 else torch.where(kind >= 0, 0, -1)
        target = max(0.0, 1.0 - 1.0 / (r.reach * cr))
        counted: tuple[Tensor, ...] = ()
        if r.ledger:
            counted = savings(batch.document.to(self.device), batch.weight.to(self.device), self.window)
        short, share = compression(alphas, target, group_of, r.groups, *counted)
        self.tokens += batch.ids.numel()
        return kl + short if self.gated.mode == "noisy" else kl, kl, share

    def divergence(self, batch: TrainingBatch, symmetric: bool = False) -> tuple[Tensor, list[Tensor]]:
        """KL of the student against the teacher on one batch, both ways if asked, and the verdicts of its layers."""
        inputs = {
            "input_ids": batch.ids.to(self.device),
            "position_ids": batch.position.to(self.device),
            "packed": Packed.build(batch.document.to(self.device), self.window),
        }
        weight = batch.weight.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            if self.frugal:
                with torch.no_grad():
                    aim = self.teacher.model(**inputs, use_cache=False).last_hidden_state
                hidden = self.gated.hidden(**inputs)
                heads = self.gated.model.lm_head, self.teacher.lm_head
                return distillation_in_parts(hidden, aim, *heads, weight, symmetric), self.gated.alphas
            with torch.no_grad():
                wanted = self.teacher(**inputs, use_cache=False).logits
            found = self.gated.forward(**inputs)
        return distillation(found, wanted, weight, symmetric), self.gated.alphas
