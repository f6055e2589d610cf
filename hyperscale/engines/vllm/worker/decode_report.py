"""The report of a step in which every request decodes one token, on CUDA: one kernel of the step, one copy back."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hyperscale.engines.vllm.kernels.decode.step_report import ROWS, gather_step_report
from hyperscale.engines.vllm.protocol import DecodeColumns
from hyperscale.engines.vllm.worker.staged_tables import StagedTables


class DecodeReporter:
    """Keeps the numbers of all slots where a CUDA graph finds them."""

    def __init__(self, tables: StagedTables) -> None:
        """Make the buffer beside a worker's tables."""
        self._tables = tables
        # Made once: under a CUDA graph every step has to find it at the same address.
        self._numbers = torch.zeros(ROWS, len(tables.lens), dtype=torch.int32, device=tables.lens.device)

    def gather(self, reads: Tensor | None) -> None:
        """Gather the numbers on the device, behind the last layer's kernels; part of the graph of a step.

        Args:
            reads: See `gather_step_report`.
        """
        gather_step_report(self._tables, reads, self._numbers)

    def start_copy(self, slots: Sequence[int], has_reads: bool) -> Callable[[], DecodeColumns]:
        """Send the numbers to the host.

        Args:
            slots: Of the step's requests, in their order.
            has_reads: Whether reads were gathered.

        Returns:
            A function that waits for the copy and reads it.
        """
        # Into memory of its own, as several steps may be read at once, later.
        return _reader(copy_numbers(self._numbers), slots, self._tables.num_lists, has_reads)

    @property
    def numbers(self) -> Tensor:
        """(`ROWS`, slots) int32, what was gathered last."""
        return self._numbers


def copy_numbers(*numbers: Tensor) -> Callable[[], list[Any]]:
    """Send numbers to the host.

    Nobody waits for the copies now. The numbers may change meanwhile: the next step's kernels are behind the copies in
    the same stream.

    Args:
        numbers: Of one device.

    Returns:
        A function that waits for the copies and returns them as arrays.
    """
    if numbers[0].device.type != "cuda":  # tests run the kernels on CPU tensors
        copies = [part.clone() for part in numbers]
        return lambda: [part.numpy() for part in copies]
    copies, event = [part.to("cpu", non_blocking=True) for part in numbers], torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()

    def wait() -> list[Any]:
        event.synchronize()
        return [part.numpy() for part in copies]

    return wait


def _reader(
    wait: Callable[[], list[Any]], slots: Sequence[int], num_lists: int, has_reads: bool
) -> Callable[[], DecodeColumns]:
    def read() -> DecodeColumns:
        (numbers,) = wait()
        pages, superblocks, live, reads = numbers[:, list(slots)].tolist()
        # The kernels cannot raise: pages past the supply went to block 0, and here it is noticed.
        assert all(used <= held * num_lists for used, held in zip(pages, superblocks, strict=True)), "page over-commit"
        return DecodeColumns(tuple(pages), tuple(live), tuple(reads) if has_reads else None)

    return read
