"""Computes the two losses of a DMS retrofit and the schedule of its target.

::

    loss(t)  = KL(student || teacher) + sum over groups of max(alpha*(t) - share saved, 0)      (arXiv 2506.05345, 3.2)
    alpha*(t) = 1 - 1 / CR(t),   CR(t) = min(1 + t / steps_per_unit, CR)
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from hyperscale.retrofit.packing import CountedPlaces

#: Tokens whose logits are held at a time by `distillation_loss_in_parts`.
LOSS_TOKENS = 1024


def scheduled_cr(step: int, steps_per_unit: float, final: float) -> float:
    """Compression ratio aimed at: ``1 + step / steps_per_unit`` up to ``final`` (the paper: 100 steps a unit)."""
    return min(1.0 + step / steps_per_unit, final)


def distillation_loss(student: Tensor, teacher: Tensor, weight: Tensor, symmetric: bool = False) -> Tensor:
    """KL(student || teacher) over the vocabulary, averaged over the tokens that count.

    That direction is the paper's. Its gradient vanishes where the student is sure of a token that the teacher rules
    out, as it is where it has evicted what the answer depends on: with all mass on one token, moving a little of it
    changes nothing to first order. KL(teacher || student) pulls there with full strength.

    Args:
        student: (..., vocabulary) logits.
        teacher: (..., vocabulary) logits, no gradient.
        weight: (...) 1 where the token counts, else 0.
        symmetric: Add KL(teacher || student).

    Returns:
        A scalar, in nats per token.
    """
    log_student = log_softmax(student.float(), -1)
    log_teacher = log_softmax(teacher.float(), -1)
    # sum s (log s - log t), and for both directions sum (s - t) (log s - log t).
    mass = log_student.exp() - log_teacher.exp() if symmetric else log_student.exp()
    divergence = (mass * (log_student - log_teacher)).sum(-1)
    return (divergence * weight).sum() / weight.sum().clamp_min(1.0)


def distillation_loss_in_parts(
    student: Tensor,
    teacher: Tensor,
    student_head: Any,
    teacher_head: Any,
    weight: Tensor,
    symmetric: bool = False,
    part: int = LOSS_TOKENS,
    counted: CountedPlaces | None = None,
    compiled: bool = False,
) -> Tensor:
    """`distillation_loss` from hidden states, ``part`` tokens at a time: no more logits are held than of one part.

    Args:
        student: (batch, sequence, hidden) last hidden states.
        teacher: (batch, sequence, hidden), no gradient.
        student_head: The student's output layer.
        teacher_head: The teacher's.
        weight: (batch, sequence) 1 where the token counts, else 0; logits are computed only where it counts.
        symmetric: Add KL(teacher || student).
        part: Tokens whose logits are held at a time.
        counted: Places where the weight is above 0 (`TrainingBatch.counted`), and others whose weight is given as 0;
            to look for them on a GPU waits for it.
        compiled: Fuse what is done with a part's logits into few kernels. All parts then have the same size.

    Returns:
        A scalar, in nats per token.
    """
    divergence = compile_divergence() if compiled else distillation_loss
    if counted is None:
        places = weight.flatten().nonzero()[:, 0]
        counted = CountedPlaces(places, weight.flatten()[places])
    chosen = [tensor.flatten(0, 1).index_select(0, counted.places) for tensor in (student, teacher)]
    weights = counted.weights
    if compiled and (lacking := -len(weights) % part):  # places that weigh nothing
        chosen = [torch.nn.functional.pad(tensor, (0, 0, 0, lacking)) for tensor in chosen]
        weights = torch.nn.functional.pad(weights, (0, lacking))

    def summed_divergence(student_part: Tensor, teacher_part: Tensor, weight_part: Tensor) -> Tensor:
        with torch.no_grad():
            teacher_logits = teacher_head(teacher_part)
        mean = divergence(student_head(student_part), teacher_logits, weight_part, symmetric)
        return mean * weight_part.sum()

    trained = [parameter for parameter in student_head.parameters() if parameter.requires_grad]
    taught = [chosen[1], weights]
    total: Tensor = _SumOfParts.apply(  # type: ignore[no-untyped-call]
        summed_divergence, part, torch.is_grad_enabled(), taught, chosen[0], *trained
    )
    return total / weight.sum().clamp_min(1.0)


class _SumOfParts(torch.autograd.Function):
    """A sum over parts of the tokens, whose gradients are made in the forward pass, while a part's logits are there.

    So no logits are computed a second time, and those of all parts are never held together.
    """

    @staticmethod
    def forward(
        ctx: Any,
        summed: Callable[..., Tensor],
        part: int,
        with_gradients: bool,
        taught: list[Tensor],
        hidden: Tensor,
        *trained: Tensor,
    ) -> Tensor:
        """The sum.

        Args:
            ctx: Holds the gradients.
            summed: Of a part's hidden states, and of the parts of what is taught, the sum.
            part: Tokens of a part.
            with_gradients: Whether gradients will be asked for.
            taught: Tensors of (tokens, ...) without gradients.
            hidden: (tokens, hidden) of the student.
            trained: The weights of its output layer that train.
        """
        of_hidden: list[Tensor] = []
        of_weights = [torch.zeros_like(weight, dtype=torch.float32) for weight in trained if with_gradients]
        total = hidden.new_zeros((), dtype=torch.float32)
        for hidden_part, *taught_part in zip(*(torch.split(tensor, part) for tensor in (hidden, *taught)), strict=True):
            if not with_gradients:
                total += summed(hidden_part, *taught_part)
                continue
            with torch.enable_grad():
                leaf = hidden_part.detach().requires_grad_()
                value = summed(leaf, *taught_part)
                with torch.autocast(hidden.device.type, enabled=False):  # gradients have the types of their values
                    of_part, *rest = torch.autograd.grad(value, [leaf, *trained])
            total += value.detach()
            of_hidden.append(of_part)
            for sums, gradient in zip(of_weights, rest, strict=True):
                sums += gradient
        ctx.of_hidden = torch.cat(of_hidden) if of_hidden else torch.zeros_like(hidden)
        ctx.of_weights = of_weights
        ctx.types = [weight.dtype for weight in trained]
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Gradients of hidden states and weights."""
        of_weights = [sums.mul_(gradient).to(dtype) for sums, dtype in zip(ctx.of_weights, ctx.types, strict=True)]
        of_hidden = ctx.of_hidden.mul_(gradient)
        ctx.of_weights = ctx.of_hidden = None
        return None, None, None, None, of_hidden, *of_weights


@cache
def compile_divergence() -> Callable[..., Tensor]:
    """`distillation_loss`, compiled."""
    compiled: Callable[..., Tensor] = torch.compile(distillation_loss, dynamic=False)
    return compiled


def ledger_costs(document: Tensor, generated: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """The cost of each entry that is kept, and how much of it an eviction saves, on the ledger's two axes.

    The paper's loss counts evicted tokens. Entries are not read equally often: a token of the prompt is read by every
    step that follows, one near the end by few, and the window's entries are held whatever their verdict. Counting
    what the ledger counts makes the nominal ratio the realised one.

    Args:
        document: (batch, sequence) number of the document in its row; each document is contiguous.
        generated: (batch, sequence) above 0 where a decode step would read the cache at this token.
        window: w of the delayed eviction; entry i is read by tokens i to i + w before its verdict counts.

    Returns:
        Costs and savings, each (batch, sequence, 2): reads until the document's end, and entries held there.
    """
    length = document.shape[1]
    index = torch.arange(length, device=document.device)
    last = torch.ones_like(document, dtype=torch.bool)
    last[:, :-1] = document[:, :-1] != document[:, 1:]
    # Index of the document's last token, at each of its tokens: the nearest end at or after it.
    end = torch.where(last, index, length).flip(1).cummin(1).values.flip(1)
    steps = (generated > 0).to(torch.float32).cumsum(1)  # decode steps in the row up to each token

    def cost_from(first: Tensor) -> Tensor:
        """Reads of an entry from index ``first`` to its document's end, and whether it is held there."""
        before = torch.where(first > 0, steps.gather(1, (first - 1).clamp(0, length - 1)), 0.0)
        within = (first <= end).to(torch.float32)  # the document does not end before
        return torch.stack([(steps.gather(1, end) - before) * within, within], -1)

    # Kept, an entry is read from its own token on; evicted, it is spared from the first token beyond its window on.
    return cost_from(index.expand_as(document)), cost_from((index + window + 1).expand_as(document))


def compression_loss(
    alphas: list[Tensor],
    target: float | Tensor,
    group: Tensor,
    groups: int,
    cost: Tensor | None = None,
    saving: Tensor | None = None,
    *,
    held: bool = False,
) -> tuple[Tensor, Tensor]:
    """One-sided compression loss: how far eviction falls short of its target.

    ``sum over groups and axes of max(target - share saved, 0)``. By default every token costs 1 and saves 1, so the
    share saved is the mean alpha; with one group that is the paper's loss, normalised as in the published code. More
    groups (one per kind of data), each with the full weight, keep the model from evicting one kind of text more to
    spare another.

    Args:
        alphas: One (batch, sequence, kv_heads) tensor per layer.
        target: Share to save, in [0, 1): ``1 - 1 / CR``; a scalar.
        group: (batch, sequence) group of each token, -1 for tokens that do not count.
        groups: Number of groups.
        cost: (batch, sequence, axes) what an entry costs if kept, see `ledger_costs`.
        saving: (batch, sequence, axes) what its eviction saves.
        held: Count the squared distance from the target, on both sides. That holds a share which nothing else pulls
            down: one-sided, each batch that falls short by chance would push it up further.

    Returns:
        The loss and the share saved, (groups, axes), both differentiable.
    """
    mean = torch.stack([a.mean(-1) for a in alphas]).mean(0)  # (batch, sequence), over layers and heads
    if cost is None or saving is None:
        cost = saving = torch.ones_like(mean)[..., None]
    member = (torch.nn.functional.one_hot(group.clamp_min(0), groups) * (group >= 0)[..., None]).to(mean.dtype)
    total = torch.einsum("bsg,bsx->gx", member, cost)  # sums over batch and sequence, by group g and axis x
    share = torch.einsum("bsg,bsx->gx", member, mean[..., None] * saving) / total.clamp_min(1.0)
    missing = target - share
    missing = missing.square() if held else missing.clamp_min(0.0)
    return (missing * (total > 0)).sum(), share
