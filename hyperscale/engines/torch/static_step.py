"""The decode step as functions of tensors that never move, so that CUDA graphs may hold it.

The batch is padded to one of a few numbers of chains, and rows are read to one of a few widths, so that few steps are
ever recorded. Chains past those in flight are padding: their tokens, positions, lengths and state are zeros when a step
begins, no row of the cache is theirs, and what comes of them is dropped.
"""

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hyperscale.engines.torch import forward_pass
from hyperscale.errors import first_line
from hyperscale.kv.cache import RaggedCache
from hyperscale.kv.formats import AUTO
from hyperscale.methods.core.base import DecodeStep, Method, State
from hyperscale.utils.cuda_graphs import CudaGraphs, StepCalls

_MULTIPLE = 16  # Rows of a decode batch: CPU matrix products round a row alike in every multiple of 8, not in others.
_FINE = 64  # up to so many chains every multiple is a size of its own


@dataclass(frozen=True)
class StaticMode:
    """How static steps are run.

    Attributes:
        calls: Makes what calls them.
        attention: Makes what attends over a cache that has no chains yet.
    """

    calls: Callable[[], StepCalls]
    attention: Callable[[RaggedCache], forward_pass.StaticAttention]


def round_up(count: int) -> int:
    """Rows of a decode batch of so many chains."""
    return -(-count // _MULTIPLE) * _MULTIPLE


def padded_size(count: int) -> int:
    """Chains that a static step of ``count`` chains is padded to: 16, 32, 48, 64, 96, 128, 192, 256 and so on."""
    size = round_up(min(count, _FINE))
    while size < count:
        # From a power of two by half as much again, and from there to the next power of two.
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def head_size(config: Any) -> int:
    """Size of a key or value of a model with this transformers configuration."""
    size: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return size


def choose_mode(method: Method, model: Any, device: torch.device, kv_dtype: str) -> StaticMode | None:
    """CUDA graphs where device, method and cache allow them; None where steps are launched kernel by kernel.

    Warns where they would be expected and something is missing.
    """
    if device.type != "cuda" or not method.state.capturable or kv_dtype != AUTO:
        return None
    with torch.cuda.device(device):
        try:
            from hyperscale.engines.torch.row_attention import RowAttention, explain_unsupported

            reason = explain_unsupported(model.dtype, head_size(model.config))
            if reason is None:
                RowAttention.try_kernels(model.dtype, model.config, head_size(model.config), device)
        except Exception as error:  # triton is missing, has no compiler here, or does not know the GPU
            reason = first_line(error)
    if reason is not None:
        warnings.warn(
            f"decode steps run without CUDA graphs, and more slowly: {reason} (--no-cuda-graphs silences this)",
            stacklevel=2,
        )
        return None
    failed: set[Hashable] = set()  # what one batch could not capture, no other tries again
    return StaticMode(lambda: CudaGraphs(device, failed, " (--no-cuda-graphs silences this)"), RowAttention)


class StaticStep:
    """The decode steps of one batch.

    Attributes:
        logits: (chains, vocabulary), those that follow each chain's last token; rows of chains that have just entered
            are the batch's to fill.
    """

    def __init__(
        self, mode: StaticMode, model: Any, method: Method, state: State, cache: RaggedCache, ids: Tensor, at: Tensor
    ) -> None:
        """Prepare the steps of an empty batch.

        Args:
            mode: How they are run.
            model: A transformers causal LM after `forward_pass.install_hooks`.
            method: The method.
            state: Its state.
            cache: The cache, with room for a multiple of chains that `padded_size` gives.
            ids: (chains,) int64, the last token of each chain.
            at: (chains,) int64, its position.
        """
        self._calls, self._attention = mode.calls(), mode.attention(cache)
        self._model, self._method, self._state, self._cache = model, method, state, cache
        self._ids, self._positions = ids, at
        self._width = 0
        self._shape = (0, 0)  # chains in flight, and what they are padded to, when padding was last cleared
        self._seen: list[tuple[int, torch.Size]] = []
        device = ids.device
        self._number = torch.arange(len(ids), device=device)
        self._count = torch.zeros((), dtype=torch.int64, device=device)
        self.logits = torch.zeros(len(ids), model.config.vocab_size, dtype=model.dtype, device=device)

    def decode(self) -> None:
        """Process the last token of every chain; fills `logits`."""
        count = self._cache.chains
        size = padded_size(count)
        # Only rules that look at slots one by one depend on how many there are.
        by_slot = self._method.needs_attention or self._method.kind == "selector"
        width = max(map(self._cache.width, range(self._cache.layers))) if by_slot else 0
        if width > self._width:
            self._state.reserve(width, 0)
            self._width = width
        self._clear_padding(count, size)
        self.run(("decode", size, width), lambda: self._decode(size, width))

    def run(self, key: tuple[Hashable, ...], function: Callable[[], Tensor]) -> Tensor:
        """Call a function of static tensors; see `StepCalls.run`."""
        seen = self._places()
        if seen != self._seen:  # the state has replaced some
            self._calls.forget()
            self._seen = seen
        result = self._calls.run(key, function)
        assert self._places() == seen, "a state whose steps can be captured must not replace its tensors within one"
        return result

    def _places(self) -> list[tuple[int, torch.Size]]:
        """What tells the state's tensors from others: one that has grown twice may lie where it first lay."""
        return [(tensor.data_ptr(), tensor.shape) for tensor in self._state.tensors]

    def _decode(self, size: int, width: int) -> Tensor:
        """One step of ``size`` chains, padding included."""
        padding = self._number[:size] >= self._count
        ids, positions, lens = self._ids[:size], self._positions[:size], self._cache.lens[:, :size]
        ids.masked_fill_(padding, 0)
        positions.masked_fill_(padding, 0)
        lens.masked_fill_(padding[:, None], 0)
        self._state.begin(DecodeStep(positions, lens))
        self._attention.begin(size, width)
        observed = self._method.needs_attention
        current = forward_pass.DecodePass(self._state, self._attention, size, observed=observed)
        logits = forward_pass.run(self._model, current, ids[:, None], positions[:, None])
        return self.logits[:size].copy_(logits)

    def _clear_padding(self, count: int, size: int) -> None:
        """Make padding of the chains from ``count`` to ``size``, if they are not so yet."""
        if (count, size) != self._shape:
            for tensor in self._state.tensors:
                tensor[:, count:size] = 0
            self._count.fill_(count)
            self._shape = count, size
