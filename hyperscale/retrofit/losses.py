"""The two losses of a DMS retrofit and the schedule of its target."""

import math

import torch
from torch import Tensor
from torch.nn.functional import log_softmax


def target_alpha(cr: float, window: int = 0, reference: float = math.inf) -> float:
    """Share of keys to evict at compression ratio ``cr``: ``1 - 1 / CR``, as in the paper, by default.

    The window's keys are held whatever their verdict, so a sequence of n tokens falls short of the nominal ratio.
    A reference length makes up for it: at ``reference`` tokens the realised ratio is the nominal one.

    Args:
        cr: Compression ratio, at least 1.
        window: w of the delayed eviction.
        reference: Length in tokens at which the realised ratio is to be the nominal one.
    """
    return min((1.0 - 1.0 / cr) / (1.0 - (window + 1) / reference), 0.999)


def scheduled_cr(step: int, steps_per_unit: float, final: float) -> float:
    """Compression ratio aimed at: ``1 + step / steps_per_unit`` up to ``final`` (the paper: 100 steps a unit)."""
    return min(1.0 + step / steps_per_unit, final)


def distillation(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """KL(student || teacher) over the vocabulary, averaged over the tokens that count.

    Args:
        student: (..., vocabulary) logits.
        teacher: (..., vocabulary) logits, no gradient.
        weight: (...) 1 where the token counts, else 0.

    Returns:
        A scalar, in nats per token.
    """
    log_student = log_softmax(student.float(), -1)
    log_teacher = log_softmax(teacher.float(), -1)
    divergence = (log_student.exp() * (log_student - log_teacher)).sum(-1)
    return (divergence * weight).sum() / weight.sum().clamp_min(1.0)


def compression(alphas: list[Tensor], target: float, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """One-sided compression loss: how far the mean eviction falls short of its target.

    ``sum over groups of max(target - mean alpha, 0)``; with one group it is the paper's loss, normalised as in the
    published code. More groups (one per kind of data), each with the full weight, keep the model from evicting one
    kind of text more to spare another.

    Args:
        alphas: One (batch, sequence, kv_heads) tensor per layer.
        target: alpha* in [0, 1).
        group: (batch, sequence) group of each token, -1 for tokens that do not count.
        groups: Number of groups.

    Returns:
        The loss and the mean alpha of each group, both differentiable.
    """
    mean = torch.stack([a.mean(-1) for a in alphas]).mean(0)
    member = torch.nn.functional.one_hot(group.clamp_min(0), groups) * (group >= 0)[..., None]
    count = member.sum((0, 1))
    share = (mean[..., None] * member).sum((0, 1)) / count.clamp_min(1)
    present = count > 0
    short = (target - share).clamp_min(0.0) * present
    return short.sum(), share
