"""Brings numbers from the host to a device without waiting for it."""

from collections.abc import Sequence

import torch
from torch import Tensor


def upload(values: Sequence[int], device: torch.device) -> Tensor:
    """Integers as an int64 tensor on the device; the copy is under way, and later work on the stream sees it."""
    host = torch.tensor(values, dtype=torch.int64)
    # Only from pinned memory does a copy run without the host waiting for it.
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)
