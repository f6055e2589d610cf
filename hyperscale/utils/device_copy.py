"""Brings numbers from the host to a device without waiting for it."""

from collections.abc import Sequence

import torch
from torch import Tensor


def upload(values: Sequence[int], device: torch.device) -> Tensor:
    """Integers as an int64 tensor on the device; the copy is under way, and later work on the stream sees it."""
    # Only from pinned memory does a copy run without the host waiting for it.
    pinned = device.type == "cuda"
    return torch.tensor(values, dtype=torch.int64, device="cpu", pin_memory=pinned).to(device, non_blocking=pinned)


def copy_to(host: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device; the host does not wait for the copy, which later work on the stream sees."""
    pinned = device.type == "cuda" and host.device.type == "cpu"
    return (host.pin_memory() if pinned else host).to(device, non_blocking=pinned)
