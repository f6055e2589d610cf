"""Trains a student to decide which tokens each KV head can do without, or can merge, in about a thousand steps.

Recipe of arXiv 2506.05345, section 3: the student starts as the teacher, all weights train, the logits are distilled,
Gumbel-sigmoid gates decide, evictions take effect after a window, and a one-sided loss pulls the mean eviction up to
``1 - 1 / CR(t)`` with CR rising linearly. One departure, off by setting ``hard_steps=(0,)``: a checkpoint is finished
by a phase with the hard gates of inference (see `hyperscale.retrofit.gate_check` for why). DMC (arXiv 2403.09636) is
trained in the same way.

The phases, in steps::

    fade (borrowed neurons only) → noisy: CR rises …………… target 1 ……………………… target 2 ………
                                                            └→ hard → checkpoint    └→ hard → checkpoint
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
from hyperscale.retrofit.losses import (
    compression_loss,
    distillation_loss,
    distillation_loss_in_parts,
    ledger_costs,
    scheduled_cr,
)
from hyperscale.retrofit.optimizer import StochasticAdamW, move_state
from hyperscale.retrofit.packed_attention import PackingMasks, checkpoint_layers, compile_layers, use_packed_attention
from hyperscale.retrofit.packing import TrainingBatch
from hyperscale.retrofit.settings import Recipe

#: Steps between two entries of the log.
LOG_STEPS = 25
#: Seconds after which a line is reported even if no step is due to be logged.
REPORT_SECONDS = 30.0


@dataclass
class TrainedStudent:
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
            # Parameters alone: the rotary frequencies are buffers, and rounding them would move every position.
            for parameter in student.parameters():
                parameter.data = parameter.data.to(dtype)
        self.teacher = teacher.eval().requires_grad_(False)
        self.gated = GatedModel(student, recipe.gates())
        student.requires_grad_(True)
        for model in (self.teacher, student):
            use_packed_attention(model)
            if self.device.type == "cuda":
                compile_layers(model)
        if frugal:
            checkpoint_layers(student)
        self.steps = self.tokens = 0
        self.log: list[dict[str, Any]] = []
        self._start = self._last_report = time.monotonic()

    def run(self, batches: Iterator[TrainingBatch]) -> Iterator[TrainedStudent]:
        """Train; yield a finished checkpoint at each target ratio."""
        r = self.recipe
        self._fade(batches)
        optimizer = self._optimizer(gates=True)
        for cr in r.crs:
            while self.steps < r.steps_until(cr):
                self.steps += 1
                noisy_step = self.steps - r.fading
                target = scheduled_cr(noisy_step, r.steps_per_unit, r.crs[-1])
                self._step(optimizer, batches, target, lr_factor=min(1.0, noisy_step / r.warmup))
            # The hard phase is a branch: the noisy phase goes on afterwards from the weights, counters and moments that
            # it had here. After the last target nothing goes on, so nothing is copied.
            last = cr == r.crs[-1]
            weights = {} if last else {k: v.to("cpu", copy=True) for k, v in self.gated.model.state_dict().items()}
            trunk = self.steps, self.tokens, list(self.log)
            move_state(optimizer, "cpu")  # room for the hard phase's own optimiser
            self._harden(cr, batches)
            config = replace(self.gated.config, cr=cr)
            yield TrainedStudent(cr, self.gated.model, config, self.steps, self.tokens, list(self.log))
            self.steps, self.tokens, self.log = trunk
            if not last:
                self.gated.model.load_state_dict(weights)
                move_state(optimizer, self.device)

    def _fade(self, batches: Iterator[TrainingBatch]) -> None:
        """Fade borrowed neurons out: in attention, and where they are made, so that logits start at their offset."""
        if self.gated.separate:
            return
        optimizer = self._optimizer(gates=False)
        self.gated.mode = "off"
        count = self.recipe.fading
        for step in range(count):
            self.steps += 1
            self.gated.visible = 1.0 - step / count
            self._step(optimizer, batches, 1.0, lr_factor=min(1.0, (step + 1) / self.recipe.warmup))
            # The factors (1 - 1/n_t) (1 - 1/(n_t - 1)) … multiply up to 1 - t/n_t, and to 0 at the end.
            self.gated.scale_neurons(1.0 - 1.0 / (count - step))
        self.gated.visible, self.gated.mode = 0.0, "noisy"
        self.gated.scale_neurons(0.0)

    def _harden(self, cr: float, batches: Iterator[TrainingBatch]) -> None:
        """Train the weights alone with the gates of inference, the learning rate falling to zero."""
        optimizer = self._optimizer(gates=False)
        self.gated.mode = "hard"
        count = self.recipe.hard_steps_at(cr)
        for step in range(count):
            self.steps += 1
            warm = min(1.0, (step + 1) / self.recipe.warmup)
            self._step(optimizer, batches, cr, lr_factor=min(warm, 1.0 - step / count))
        self.gated.mode = "noisy"

    def _optimizer(self, *, gates: bool) -> torch.optim.Optimizer:
        """AdamW over the weights, and over the gates' projections at a rate of their own if they train."""
        r = self.recipe
        groups = [{"params": self.gated.weight_parameters(), "lr": r.lr, "base_lr": r.lr}]
        if gates and self.gated.separate:
            groups.append({"params": self.gated.gate_parameters(), "lr": r.gate_lr, "base_lr": r.gate_lr})
        if next(self.gated.model.parameters()).dtype == torch.bfloat16:
            return StochasticAdamW(groups, betas=(0.9, 0.95))
        return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=self.device.type == "cuda")

    def _step(
        self, optimizer: torch.optim.Optimizer, batches: Iterator[TrainingBatch], cr: float, lr_factor: float
    ) -> None:
        """One optimiser step towards a compression ratio, its gradient averaged over ``accumulate`` batches."""
        r = self.recipe
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * lr_factor
        kl, alphas = 0.0, [0.0] * r.groups
        log_due = self.steps % LOG_STEPS == 0 or self.steps == 1
        report_due = log_due or time.monotonic() - self._last_report > REPORT_SECONDS
        for _ in range(r.accumulate):
            loss, divergence, share = self._losses(next(batches), cr)
            (loss / r.accumulate).backward()  # type: ignore[no-untyped-call]
            # Reading a value waits for the device, so it is done only for steps that are reported.
            if report_due:
                kl += divergence.item() / r.accumulate
                alphas = [a + b / r.accumulate for a, b in zip(alphas, share[:, 0].tolist(), strict=True)]
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], r.clip)
        optimizer.step()
        # Of the whole model: in the hard phase the gates get gradients that no optimiser clears.
        self.gated.model.zero_grad(set_to_none=True)
        if log_due:
            self.log.append({"step": self.steps, "mode": self.gated.mode, "cr": cr, "kl": kl, "alpha": alphas})
        if report_due:
            self._last_report = time.monotonic()
            self.report(
                f"{self._last_report - self._start:5.0f} s  step {self.steps:5d} {self.gated.mode:5s}  CR {cr:5.2f}  "
                f"KL {kl:.5f}  alpha {' '.join(f'{a:.3f}' for a in alphas)}"
            )

    def _losses(self, batch: TrainingBatch, cr: float) -> tuple[Tensor, Tensor, Tensor]:
        """What is minimised, the divergence in it, and the share saved, (groups, axes)."""
        r = self.recipe
        kl, alphas = self.divergence(batch, r.symmetric)
        kind = batch.kind.to(self.device)
        group = kind if r.groups > 1 else torch.where(kind >= 0, 0, -1)
        target = max(0.0, 1.0 - 1.0 / (r.reach * cr))
        shortfall, share = compression_loss(alphas, target, group, r.groups, *self._costs(batch))
        self.tokens += batch.ids.numel()
        return kl + shortfall if self.gated.mode == "noisy" else kl, kl, share

    def saved_share(self, batch: TrainingBatch, alphas: list[Tensor]) -> Tensor:
        """What a batch's evictions save, of all kinds of data together.

        Args:
            batch: The batch.
            alphas: Its evictions, one (batch, sequence, kv_heads) tensor a layer.

        Returns:
            (axes,) share of entries; by the ledger, of reads and of entries held.
        """
        group = torch.where(batch.kind.to(self.device) >= 0, 0, -1)
        return compression_loss(alphas, 0.0, group, 1, *self._costs(batch))[1][0]

    def _costs(self, batch: TrainingBatch) -> tuple[Tensor, ...]:
        """Costs and savings of a batch's entries, for `compression_loss`.

        By default each token costs and saves 1, the paper's loss; by the ledger, what runs are measured in.
        """
        r = self.recipe
        if not r.ledger:
            return ()
        return ledger_costs(batch.document.to(self.device), batch.weight.to(self.device), r.delay)

    def divergence(self, batch: TrainingBatch, symmetric: bool = False) -> tuple[Tensor, list[Tensor]]:
        """Divergence of the student from the teacher on one batch, and the student's evictions.

        Args:
            batch: Rows of packed documents.
            symmetric: Add KL(teacher || student) to KL(student || teacher).

        Returns:
            A scalar, in nats per token that counts, and one (batch, sequence, kv_heads) alpha a layer.
        """
        inputs = {
            "input_ids": batch.ids.to(self.device),
            "position_ids": batch.position.to(self.device),
            "masks": PackingMasks.build(batch.document.to(self.device), self.recipe.delay),
        }
        weight = batch.weight.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            if self.frugal:
                with torch.no_grad():
                    teacher_hidden = self.teacher.model(**inputs, use_cache=False).last_hidden_state
                student_hidden = self.gated.hidden(**inputs)
                heads = self.gated.model.lm_head, self.teacher.lm_head
                kl = distillation_loss_in_parts(student_hidden, teacher_hidden, *heads, weight, symmetric)
                return kl, self.gated.alphas
            with torch.no_grad():
                teacher_logits = self.teacher(**inputs, use_cache=False).logits
            student_logits = self.gated.forward(**inputs)
        return distillation_loss(student_logits, teacher_logits, weight, symmetric), self.gated.alphas
