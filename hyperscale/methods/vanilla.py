"""The uncompressed cache."""

from dataclasses import dataclass

from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.methods.core.base import DecodeStep, LayerInput, Method, State


class _Append(State):
    capturable = True

    def begin(self, step: DecodeStep) -> None:
        self._lens = step.lens

    def write_slots(self, layer: int, layer_input: LayerInput) -> Tensor:
        return self._lens[layer]


@dataclass
class Vanilla(Method):
    """Keeps every entry.

    Parameters:
        cr: 1, the only ratio.
    """

    name = "vanilla"
    summary = "the full KV cache"
    source = "Vaswani et al. 2017, arXiv 1706.03762"
    state = _Append

    def __post_init__(self) -> None:
        if self.cr != 1:
            raise MethodError(f"vanilla compresses nothing: its compression ratio is 1, not {self.cr:g}")
        super().__post_init__()
