"""The report of a step in which every request decodes one token, on CUDA: one kernel of the step, one copy back."""

from collections.abc import Callable, Sequence

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
        num_lists = self._tables.num_lists
        if self._numbers.device.type != "cuda":  # tests run the kernels on CPU tensors
            return _reader(self._numbers.clone(), None, slots, num_lists, has_reads)
        # Into memory of its own, as several steps may be read at once, later. The next step's kernels are behind the
        # copy in the same stream.
        numbers, event = self._numbers.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return _reader(numbers, event, slots, num_lists, has_reads)


def _reader(
    numbers: Tensor, event: torch.cuda.Event | None, slots: Sequence[int], num_lists: int, has_reads: bool
) -> Callable[[], DecodeColumns]:
    def read() -> DecodeColumns:
        if event is not None:
            event.synchronize()
        pages, superblocks, live, reads = numbers.numpy()[:, list(slots)].tolist()
        # The kernels cannot raise: pages past the supply went to block 0, and here it is noticed.
        assert all(used <= held * num_lists for used, held in zip(pages, superblocks, strict=True)), "page over-commit"
        return DecodeColumns(tuple(pages), tuple(live), tuple(reads) if has_reads else None)

    return read
