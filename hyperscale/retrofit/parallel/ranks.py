"""The processes that share a training, as ``torchrun`` starts them."""

import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from hyperscale.retrofit.parallel.launch import is_started

T = TypeVar("T")

#: Longest that a process waits for the one that writes: a checkpoint of 65 GB takes 2 hours at 10 MB a second.
_LONGEST_WAIT = timedelta(hours=4)
_waiting: Any = None  # the group in which processes wait for each other


@dataclass(frozen=True)
class Ranks:
    """This process among those of a training.

    Attributes:
        rank: Its number; 0 writes and reports.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def average(self, tensor: Tensor) -> Tensor:
        """The mean over all processes; a collective."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)
            tensor /= self.count
        return tensor

    def follow_first(self, decision: bool, device: torch.device) -> bool:
        """The first process's decision, which clocks of others must not contradict; a collective."""
        if self.count == 1:
            return decision
        told = torch.tensor(float(decision), device=device)
        torch.distributed.broadcast(told, 0)
        return bool(told.item())

    def gather(self, value: T) -> list[T]:
        """What every process gives, by its number; a collective."""
        values: list[T] = [value] * self.count
        if self.count > 1:
            torch.distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait for all processes; a collective."""
        if self.count > 1:
            wait_for_all()


def join_ranks(device: str) -> tuple[Ranks, str]:
    """Join the processes of a training, if there are several.

    Args:
        device: "cpu" or "cuda".

    Returns:
        This process among them, and its own device.
    """
    if not is_started():
        return Ranks(), device
    kind = torch.device(device).type
    if kind == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
        # A group of its own: in the one that computes, a process that is lost is to be noticed after torch's own
        # timeout of minutes; in gloo it is noticed at once, however long the others would wait.
        global _waiting
        _waiting = torch.distributed.new_group(backend="gloo", timeout=_LONGEST_WAIT)
    return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size()), device


def wait_for_all() -> None:
    """Return once all processes of the training have come here, and their GPUs are done."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    torch.distributed.barrier(group=_waiting)


def leave_ranks() -> None:
    """End this process, once all processes of the training are done; alone, do nothing.

    It ends at once, without taking the interpreter down: threads of gloo may still hold tensors of Python, also after
    ``destroy_process_group``, and abort a process whose interpreter is gone (pytorch pull request 179291). ``torchrun``
    would take that for a training that failed.
    """
    if not torch.distributed.is_initialized():
        return
    wait_for_all()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
