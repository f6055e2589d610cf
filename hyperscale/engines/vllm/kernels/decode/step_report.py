# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Gathers what a step is reported with, of all slots in one kernel, which can be the last of a CUDA graph."""

import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import KernelTables

ROWS = 4  # of what is gathered: pages in use, superblocks, entries, entries read
_BLOCK = 1024


@triton.jit
def _step_report_kernel(
    pages_used, num_superblocks, lens, reads, out, slots, num_lists, BLOCK: tl.constexpr, HAS_READS: tl.constexpr
):
    # Grid (slots,): a program adds up the lists of one slot.
    slot = tl.program_id(0)
    total = tl.zeros((BLOCK,), tl.int32)
    for begin in range(0, num_lists, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        total += tl.load(lens + slot.to(tl.int64) * num_lists + index, mask=index < num_lists, other=0)
    tl.store(out + slot, tl.load(pages_used + slot))
    tl.store(out + slots + slot, tl.load(num_superblocks + slot))
    tl.store(out + 2 * slots + slot, tl.sum(total, 0))
    if HAS_READS:
        tl.store(out + 3 * slots + slot, tl.load(reads + slot).to(tl.int32))


def gather_step_report(tables: KernelTables, reads: Tensor | None, out: Tensor) -> None:
    """Gather the numbers of all slots.

    Args:
        tables: The worker's tables.
        reads: (slots,) int64, entries that each slot's last decode step read; None if it read all that there were.
        out: (`ROWS`, slots) int32, contiguous; written: pages in use, superblocks, entries of all lists, and ``reads``
            if there are any.
    """
    slots = len(tables.lens)
    num_lists = tables.lens[0].numel()
    _step_report_kernel[(slots,)](
        tables.pages_used,
        tables.num_superblocks,
        tables.lens,
        tables.lens if reads is None else reads,
        out,
        slots,
        num_lists,
        BLOCK=min(triton.next_power_of_2(num_lists), _BLOCK),
        HAS_READS=reads is not None,
        num_warps=4,
    )
