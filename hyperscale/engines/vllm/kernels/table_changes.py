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
from hyperscale.engines.vllm.kernels.step_launches import StepLaunches

PARAMS = 3  # numbers of a request
_BLOCK = 256
_PROGRAMS = 4


class ChangedTables(KernelTables, Protocol):
    """The tables that change between two steps.

    Attributes:
        request_params: (slots, `PARAMS`) int64, contiguous.
    """

    request_params: Tensor


@triton.jit
def _assign(table, pairs, count, index):
    """Assign the numbers ``index`` of ``count`` pairs, all their places before all their values."""
    place = tl.load(pairs + index, mask=index < count, other=0)
    value = tl.load(pairs + count + index, mask=index < count, other=0)
    tl.store(table + place, value.to(tl.int32), mask=index < count)


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
    PROGRAMS: tl.constexpr,
):
    # Grid (PROGRAMS,), however much changes.
    program = tl.program_id(0)
    for opened in range(program, num_opened, PROGRAMS):
        slot = tl.load(changes + opened)
        tl.store(pages_used + slot, 0)
        for begin in range(0, lists, BLOCK):
            index = begin + tl.arange(0, BLOCK)
            zeros = tl.zeros((BLOCK,), tl.int32)
            tl.store(num_pages + slot * lists + index, zeros, mask=index < lists)
            tl.store(lens + slot * lists + index, zeros, mask=index < lists)
            tl.store(newest + slot * lists + index, zeros, mask=index < lists)
        which = tl.arange(0, WIDTH)
        params = tl.load(changes + num_opened + opened * PARAMS + which, mask=which < PARAMS, other=0)
        tl.store(request_params + slot * PARAMS + which, params, mask=which < PARAMS)
    firsts = changes + num_opened * (1 + PARAMS)
    places = firsts + 2 * num_firsts
    counts = places + 2 * num_places
    most = tl.maximum(num_firsts, tl.maximum(num_places, num_counts))
    for begin in range(program * BLOCK, most, PROGRAMS * BLOCK):
        index = begin + tl.arange(0, BLOCK)
        _assign(slot_of_block, firsts, num_firsts, index)
        _assign(superblocks, places, num_places, index)
        _assign(num_superblocks, counts, num_counts, index)


def change_tables(
    tables: ChangedTables,
    changes: Tensor,
    num_opened: int,
    num_pairs: Sequence[int],
    launches: StepLaunches | None = None,
) -> None:
    """Empty the slots that requests have got, and assign what has changed.

    Args:
        tables: The worker's tables; changed.
        changes: int64, contiguous: the slots that were opened; their requests' parameters, one after another; then for
            each of ``slot_of_block``, ``superblocks`` (flat) and ``num_superblocks`` all places that change, each once,
            and behind them their new values.
        num_opened: How many slots.
        num_pairs: How many places of each of the three.
        launches: Of these tables; None to launch it anew.
    """
    launches = launches or StepLaunches()
    of_call = (changes, num_opened, *num_pairs)
    if launches.repeat(_table_changes_kernel, of_call, ()):  # not of the tables themselves, which may keep it
        return
    launches.begin(
        _table_changes_kernel,
        (_PROGRAMS,),
        of_call,
        (),
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
        PROGRAMS=_PROGRAMS,
        num_warps=4,
    )
