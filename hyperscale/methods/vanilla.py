"""The uncompressed cache."""

from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.methods.core.base import DecodeStep, Host, Method, State, Token


class _Append(State):
    def begin(self, step: DecodeStep) -> None:
        self._lens = step.lens

    def slots(self, layer: int, token: Token) -> Tensor:
        return self._lens[layer]


class Vanilla(Method):
    """Keeps every entry."""

    name = "vanilla"
    summary = "the full KV cache"
    source = "Vaswani et al. 2017, arXiv 1706.03762"

    def __init__(self, cr: float = 1.0) -> None:
        if cr != 1:
            raise MethodError(f"vanilla compresses nothing: its compression ratio is 1, not {cr:g}")
        super().__init__(cr)

    def start(self, host: Host) -> State:
        """See `Method.start`."""
        return _Append()
