# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Brings a worker's tables up to date before a step, all of them in one launch.

A step with prompts waits for what the host does before its first layer, and an assignment a table is a dozen launches.
"""

from collections.abc import Sequence
from typing import Protocol

import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import KernelTables

PARAMS = 3  # numbers of a request
_BLOCK = 256


class ChangedTables(KernelTables, Protocol):
    """The tables that change between two steps.

    Attributes:
        request_params: (slots, `PARAMS`) int64, contiguous.
    """

    request_params: Tensor


@triton.jit
def _assign(table, pairs, count, index, BLOCK: tl.constexpr):
    """Assign the numbers ``index`` of ``count`` pairs, all their places before all their values."""
    place = tl.load(pairs + index, mask=index < count, other=0)
    value = tl.load(pairs + count + index, mask=index < count, other=0)
    tl.store(table + place, value.to(tl.int32), mask=index < count)
    return pairs + 2 * count


@triton.jit(do_not_specialize=["num_opened", "num_firsts", "num_places", "num_counts", "lists"])
def _table_changes_kernel(
    changes,
    num_opened,
    num_firsts,
    num_places,
    num_counts,
    pages_used,
    num_pages,
    lens,
    newest,
    request_params,
    slot_of_block,
    superblocks,
    num_superblocks,
    lists,
    PARAMS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # Grid (opened slots + blocks of pairs,).
    program = tl.program_id(0)
    if program < num_opened:
        slot = tl.load(changes + program)
        tl.store(pages_used + slot, 0)
        for begin in range(0, lists, BLOCK):
            index = begin + tl.arange(0, BLOCK)
            zeros = tl.zeros((BLOCK,), tl.int32)
            tl.store(num_pages + slot * lists + index, zeros, mask=index < lists)
            tl.store(lens + slot * lists + index, zeros, mask=index < lists)
            tl.store(newest + slot * lists + index, zeros, mask=index < lists)
        which = tl.arange(0, WIDTH)
        params = tl.load(changes + num_opened + program * PARAMS + which, mask=which < PARAMS, other=0)
        tl.store(request_params + slot * PARAMS + which, params, mask=which < PARAMS)
        return
    index = (program - num_opened) * BLOCK + tl.arange(0, BLOCK)
    pairs = changes + num_opened * (1 + PARAMS)
    pairs = _assign(slot_of_block, pairs, num_firsts, index, BLOCK)
    pairs = _assign(superblocks, pairs, num_places, index, BLOCK)
    _assign(num_superblocks, pairs, num_counts, index, BLOCK)


def change_tables(tables: ChangedTables, changes: Tensor, num_opened: int, num_pairs: Sequence[int]) -> None:
    """Empty the slots that requests have got, and assign what has changed.

    Args:
        tables: The worker's tables; changed.
        changes: int64, contiguous: the slots that were opened; their requests' parameters, one after another; then for
            each of ``slot_of_block``, ``superblocks`` (flat) and ``num_superblocks`` all places that change, each once,
            and behind them their new values.
        num_opened: How many slots.
        num_pairs: How many places of each of the three.
    """
    _table_changes_kernel[(num_opened + triton.cdiv(max(*num_pairs, 1), _BLOCK),)](
        changes,
        num_opened,
        *num_pairs,
        tables.pages_used,
        tables.num_pages,
        tables.lens,
        tables.newest,
        tables.request_params,
        tables.slot_of_block,
        tables.superblocks,
        tables.num_superblocks,
        tables.lens.stride(0),
        PARAMS=PARAMS,
        WIDTH=triton.next_power_of_2(PARAMS),
        BLOCK=_BLOCK,
        num_warps=4,
    )
