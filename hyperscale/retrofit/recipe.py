"""Settings of a retrofit."""

from dataclasses import dataclass
from typing import Literal

from hyperscale.methods.core.dmc_merge import MergeConfig
from hyperscale.methods.core.dms_gate import GateConfig


@dataclass(frozen=True)
class Recipe:
    """Settings of a retrofit.

    Attributes:
        targets: Compression ratios to leave a checkpoint at, ascending.
        steps_per_unit: Steps in which CR(t) rises by one.
        hard_steps: Steps with hard gates that finish each checkpoint, one number for all or one for each; only the
            weights train.
        method: "dms" or "dmc".
        separate: Whether DMS's gates have a projection of their own; otherwise they borrow a neuron, as DMC's do.
        per: Whether DMS's verdicts are each KV head's own or a layer's, "head" or "layer".
        fade_steps: Steps n_t before all others in which borrowed neurons are faded out of attention by 1 - t / n_t.
        window: w of the delayed eviction; of no meaning for DMC.
        lr: Learning rate of the weights (AdamW).
        gate_lr: Learning rate of the projections; their output is scaled by 100. Borrowed neurons, scaled by 100 too,
            are trained with the weights they are part of.
        warmup: Steps over which the learning rate rises.
        clip: Norm the gradients are clipped to.
        ledger: Ask for the ratio in what the ledger counts, reads and entries held at the end, the window counted
            (`hyperscale.retrofit.losses.savings`); otherwise in evicted tokens, the paper's loss.
        reach: Share of the nominal ratio that is asked for; 1 is the paper's.
        groups: Number of kinds of data, each pulled to the target by itself; 1 is the paper's loss.
        symmetric: Distil in both directions (`hyperscale.retrofit.losses.distillation`); otherwise in the paper's.
        accumulate: Batches of an optimiser step, their losses averaged.
        seed: Seed of the gates' noise.
    """

    targets: tuple[float, ...] = (2.0, 4.0, 8.0)
    steps_per_unit: float = 100.0
    hard_steps: int | tuple[int, ...] = 150
    method: Literal["dms", "dmc"] = "dms"
    separate: bool = True
    per: Literal["head", "layer"] = "head"
    fade_steps: int = 0
    window: int = 16
    lr: float = 3e-4
    gate_lr: float = 3e-5
    warmup: int = 20
    clip: float = 1.0
    ledger: bool = False
    reach: float = 1.0
    groups: int = 1
    symmetric: bool = False
    accumulate: int = 1
    seed: int = 0

    def gates(self) -> GateConfig | MergeConfig:
        """Settings of untrained gates."""
        if self.method == "dmc":
            # The reference code has no scale. But a norm of queries and keys divides what a neuron learns (by 10 in the
            # built-in model) and bounds what it can be.
            return MergeConfig(alpha_scale=GateConfig.alpha_scale, cr=self.targets[-1])
        return GateConfig(window=self.window, cr=self.targets[-1], separate=self.separate, per=self.per)

    def hard_steps_at(self, cr: float) -> int:
        """Steps of the hard phase that finishes the checkpoint at a target ratio."""
        return self.hard_steps if isinstance(self.hard_steps, int) else self.hard_steps[self.targets.index(cr)]
