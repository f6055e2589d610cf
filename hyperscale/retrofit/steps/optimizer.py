"""Makes the optimiser, AdamW, also for weights kept in bfloat16; moves, takes and restores an optimiser's state."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hyperscale.retrofit.parallel.sharding import as_part_of, local_part

#: Elements that a step computes with at a time, in some six tensors of float32. Of all the 545 M embeddings of a 7 B
#: model these would be 12 GiB, on top of all that is kept.
PIECE = 1 << 26


def round_stochastically(value: Tensor) -> Tensor:
    """Float32 to bfloat16, up or down with the probability that keeps the expectation.

    A step of 1e-5 is below half of bfloat16's spacing at a weight of 0.02, so rounding to nearest would undo it.
    """
    bits = value.contiguous().view(torch.int32)
    # bfloat16 is the upper half of a float32. Uniform noise in the lower half carries into the upper one with a
    # probability that is the part cut off; then the lower half is cleared.
    noise = torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, device=bits.device)
    return ((bits + noise) & -(1 << 16)).view(torch.float32).to(torch.bfloat16)


class StochasticAdamW(torch.optim.Optimizer):
    """AdamW without weight decay: bfloat16 weights, float32 moments, stochastic rounding."""

    def __init__(
        self, groups: Iterable[dict[str, Any]], betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8
    ) -> None:
        super().__init__(groups, {"betas": betas, "eps": eps, "lr": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step; the closure is not used."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                # Of a sharded weight, this process's part: what follows goes element by element.
                own, gradient, state = local_part(weight), local_part(weight.grad), self.state[weight]
                if not state:
                    state["step"] = 0
                    state["mean"] = torch.zeros_like(own, dtype=torch.float32)
                    state["square"] = torch.zeros_like(own, dtype=torch.float32)
                state["step"] += 1
                # Both moments without their bias towards their start at 0.
                square_share = 1 - beta2 ** state["step"]
                rate = group["lr"] / (1 - beta1 ** state["step"])
                for value, slope, mean, square in _pieces(own, gradient, state["mean"], state["square"]):
                    slope = slope.float()
                    mean.lerp_(slope, 1 - beta1)
                    square.mul_(beta2).addcmul_(slope, slope, value=1 - beta2)
                    scale = (square / square_share).sqrt_().add_(group["eps"])
                    # The update is computed in float32.
                    value.copy_(round_stochastically(value.float().addcdiv_(mean, scale, value=-rate)))


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of the same `PIECE` elements of each of several tensors of one shape, one piece after another."""
    if all(tensor.is_contiguous() for tensor in tensors):
        tensors = tuple(tensor.view(-1) for tensor in tensors)
        yield from zip(*(torch.split(tensor, PIECE) for tensor in tensors), strict=True)
    else:
        yield tensors


def adamw(rates: Iterable[tuple[Sequence[Tensor], float]]) -> torch.optim.Optimizer:
    """AdamW without weight decay, of the paper's moments; bfloat16 weights are rounded stochastically.

    Args:
        rates: Weights of one device and type, and their learning rate, which is "base_lr" of their group too.
    """
    rates = [(weights, rate) for weights, rate in rates if weights]
    groups = [{"params": list(weights), "lr": rate, "base_lr": rate} for weights, rate in rates]
    first = rates[0][0][0]
    if first.dtype == torch.bfloat16:
        return StochasticAdamW(groups, betas=(0.9, 0.95))
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=first.device.type == "cuda")


def move_state(optimizer: torch.optim.Optimizer, device: torch.device | str) -> None:
    """Move an optimiser's state to a device, in place; it can step only where its weights are."""
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor):
                state[name] = value.to(device)


def take_moments(optimizer: torch.optim.Optimizer | None) -> list[dict[str, Any]]:
    """An optimiser's state by the order of its weights, not copied; empty if there is no optimiser.

    Of sharded weights it is this process's part.
    """
    if optimizer is None:
        return []
    return [
        {name: local_part(value) if isinstance(value, Tensor) else value for name, value in state.items()}
        for group in optimizer.param_groups
        for weight in group["params"]
        for state in (optimizer.state.get(weight, {}),)
    ]


def restore_moments(optimizer: torch.optim.Optimizer, moments: list[dict[str, Any]], device: torch.device) -> None:
    """Give an optimiser the state that `take_moments` took from one over the same weights.

    Types stay as they were: `torch.optim.Optimizer.load_state_dict` would round moments to the type of the weights.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for weight, state in zip(weights, moments, strict=True):
        if state:
            optimizer.state[weight] = {
                name: value.to(device) if isinstance(value, Tensor) else value for name, value in state.items()
            }
            if not isinstance(optimizer, StochasticAdamW):  # which keeps parts as they are
                for name, value in optimizer.state[weight].items():
                    if isinstance(value, Tensor) and value.ndim:
                        optimizer.state[weight][name] = as_part_of(weight, value)
