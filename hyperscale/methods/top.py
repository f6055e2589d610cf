"""Choosing the best entries of a row."""

import torch
from torch import Tensor


def best(scores: Tensor, count: int, *, pinned: int = 0, newest: int = 0) -> Tensor:
    """The ``count`` entries of a prompt that stay.

    Args:
        scores: (..., P) by position; the higher the better, among equals the earlier.
        count: How many stay, at most P.
        pinned: How many of the first stay in any case.
        newest: How many of the last do.

    Returns:
        (..., P) bool.
    """
    length = scores.shape[-1]
    position = torch.arange(length, device=scores.device)
    safe = (position < pinned) | (position >= length - newest)
    order = scores.masked_fill(safe, float("inf")).argsort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, order[..., :count], True)
