"""Decode steps of hosted methods by kernels, which read and change what is kept by slot in its place.

A state in plain torch takes some twenty small operations a layer, which cost more than the attention. Here a layer is
`kernels.decode_update`, which is told where the new entries go, attention, and what the method makes of it in one or
two kernels more. What depends on positions alone is computed once a step, by the methods' own code. What a prompt
leaves the state decides, as on the CPU; only for these steps are the kernels there instead of it, and they decide the
same.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import DecodeRequests, PagedCache
from hyperscale.engines.vllm.kernels.decode_update import decode_update
from hyperscale.engines.vllm.worker.tables import EntryTables


@dataclass(frozen=True)
class DecodeLayer:
    """A layer of a decode step, as the kernels are given it; see `decode_update` and `decode_attention`.

    Attributes:
        cache: The cache.
        layer: The layer.
        requests: The requests.
        queries: (requests, heads, group, head_dim), requests may be strided.
        keys: (requests, heads, head_dim).
        values: As keys.
        lens: (requests, heads) int32, written: entries of each list.
        pages: (requests, heads, pages) int32, written: their pages.
        out: As queries, contiguous; written.
        scale: Factor on the scores.
        width: At least the entries of the longest list once the new one is there.
    """

    cache: PagedCache
    layer: int
    requests: DecodeRequests
    queries: Tensor
    keys: Tensor
    values: Tensor
    lens: Tensor
    pages: Tensor
    out: Tensor
    scale: float
    width: int


class FusedDecode(ABC):
    """See the module.

    Attributes:
        by_slot: Whether the rows of the state's own tensors are slots, so that nothing is copied for a step.
        tables: The worker's tables.
    """

    by_slot = True

    def __init__(self, tables: EntryTables) -> None:
        self.tables = tables

    @abstractmethod
    def begin(self, slots: Tensor, positions: Tensor) -> None:
        """A decode step begins; see `WorkerHosted.begin`."""

    @abstractmethod
    def store(self, layer: DecodeLayer) -> None:
        """Write the new entries of a layer, and its lengths and pages, unless `attend` does so."""

    def attend(self, layer: DecodeLayer) -> bool:
        """Attend to what the step reads in a layer; False, and nothing done, if that is all that is in the lists."""
        return False

    def in_prompt(self, slots: Tensor, positions: Tensor) -> Tensor:
        """(requests,) bool: whether a token is still the prompt's; it came alone, and nothing leaves for it."""
        is_prompt: Tensor = positions < self.tables.request_params[slots, 0]
        return is_prompt


def update(tables: EntryTables, layer: DecodeLayer, **places: object) -> None:
    """`decode_update` of a layer; ``places`` are its arguments that say where the new entries go."""
    arguments = (layer.requests, layer.keys, layer.values, layer.lens, layer.pages)
    decode_update(tables, layer.cache, layer.layer, *arguments, **places)  # type: ignore[arg-type]
