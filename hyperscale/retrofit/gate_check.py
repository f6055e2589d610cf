"""Checks that a retrofit decides at inference as it did in training, and saves what it was trained to save.

Gates learn with noise and decide without. A gate that sees little more than the token itself (layer 0) can learn to
keep a *random share* of a kind of token; rounding its logit at inference turns the share into all or nothing. The
training loss does not show it, generation collapses. Comparing the teacher-forced divergence under training gates and
under inference gates does show it.

Both can be large. Decisions by neurons of attention (borrowed gates, DMC) go on moving in the hard phase, and may ruin
the model under either gates; so a large divergence under the gates of inference is told.

The compression loss only asks: where it asked for too little time, or of gates that barely learn, nothing is evicted,
and both divergences are 0. So the ratio reached is held against the ratio asked for.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hyperscale.errors import RetrofitError
from hyperscale.retrofit.gates.gated_model import Mode
from hyperscale.retrofit.packing import TrainingBatch
from hyperscale.retrofit.trainer import Retrofit

#: Inference gates may diverge from the teacher this many times as much as training gates.
MAX_RATIO = 3.0
#: Least ratio that inference gates must reach on held-out text, as a share of the one aimed at.
MIN_REACHED = 0.8
#: Least share of the entries or reads to be saved that they must save: it decides for ratios near 1.
MIN_SAVED = 0.5
#: Nats per token from which a divergence under the gates of inference is told. Retrofits of the built-in model at 0.1
#: and less keep more than half of its accuracy at 8x, those at 0.6 and 1.2 half and a tenth of it at 4x.
FAR_KL = 0.5
#: Below this many nats per token a divergence does no harm, whatever its ratio.
NEGLIGIBLE = 1e-5


@dataclass(frozen=True)
class GateCheck:
    """Teacher-forced KL(student || teacher), in nats per token.

    Attributes:
        noisy: Under the gates of training.
        hard: Under the gates of inference (evict iff logit > 0).
        alpha: Mean eviction under the gates of inference.
        saved: Share that they save by the recipe's own count: of entries, or, by the ledger, of reads or of entries
            held, whichever is less.
        kept: Share of the entries that each KV head keeps under the gates of inference, layer by layer.
    """

    noisy: float
    hard: float
    alpha: float
    saved: float
    kept: list[list[float]] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """How much worse inference is than training."""
        return self.hard / max(self.noisy, 1e-12)

    @property
    def reached(self) -> float:
        """The compression ratio that the share saved stands for."""
        return 1 / max(1 - self.saved, 1e-12)

    @property
    def warning(self) -> str:
        """What a checkpoint that is not refused should not be taken for; empty if there is nothing to say."""
        if not self.hard > FAR_KL:
            return ""
        return (
            f"far from its base: KL {self.hard:.2f} nats a token with inference gates on held-out text, where "
            f"{FAR_KL:g} costs about half of the right answers; compress in more steps (--steps-per-unit), or less"
        )

    def require(self, cr: float) -> None:
        """Refuse a checkpoint that would generate worse than it trained, or that saves less than it was trained for.

        Args:
            cr: The compression ratio that the training aimed at.

        Raises:
            RetrofitError: The ratio of divergences exceeds `MAX_RATIO`, or that of compression is below `MIN_REACHED`
                of the one aimed at, or what is saved below `MIN_SAVED`.
        """
        if not math.isfinite(self.hard) or (self.ratio > MAX_RATIO and self.hard > NEGLIGIBLE):
            raise RetrofitError(
                f"the retrofit decides differently at inference than in training: KL {self.hard:.4f} with inference "
                f"gates, {self.noisy:.4f} with training gates (ratio {self.ratio:.1f}, at most {MAX_RATIO:g}); "
                "train longer, or with more --hard-steps"
            )
        least = max(MIN_REACHED * cr, 1 / (1 - MIN_SAVED * (1 - 1 / cr)))
        if self.reached < least:
            raise RetrofitError(
                f"the retrofit saves less than asked: {self.saved:.1%} with inference gates on held-out text, a ratio "
                f"of {self.reached:.2f} where {cr:g} was aimed at (at least {least:.2f}): train longer "
                "(--steps-per-unit), with a higher --gate-lr, or on more text"
            )


def check_gates(retrofit: Retrofit, batches: Iterable[TrainingBatch]) -> GateCheck:
    """Measure both divergences of the student as it stands on held-out batches; its mode is restored.

    Raises:
        RetrofitError: There is no batch.
    """
    distillation, student = retrofit.distillation, retrofit.gated
    training_mode = student.mode
    modes: tuple[Mode, ...] = ("noisy", "hard")
    sums = dict.fromkeys(modes, 0.0)
    alpha, count = 0.0, 0
    shares: list[Tensor] = []
    kept: list[Tensor] = []
    distillation.seed_noise(0)  # the same on every process that shares the training, and at every check
    with torch.no_grad():
        for batch in batches:
            count += 1
            for mode in modes:
                student.mode = mode
                kl, alphas = distillation.divergence(batch)
                sums[mode] += kl.item()
            # The alphas of the last mode, which is that of inference.
            counting = (batch.kind >= 0).to(alphas[0].device)
            evicted = torch.stack([a[counting].float().mean(0) for a in alphas])  # (layers, kv_heads)
            alpha += evicted.mean().item()
            kept.append(1 - evicted)
            shares.append(distillation.saved_share(batch, alphas))
    student.mode = training_mode
    if not count:
        raise RetrofitError("the gate check needs at least one held-out batch")
    saved = torch.stack(shares).mean(0).min().item()
    by_head = torch.stack(kept).mean(0).tolist()
    return GateCheck(sums["noisy"] / count, sums["hard"] / count, alpha / count, saved, by_head)
