"""Describes the KV cache to vLLM: all layers share one cache tensor, whose blocks are superblocks."""

from dataclasses import dataclass
from typing import Any, Self

from vllm.config import VllmConfig
from vllm.v1.kv_cache_interface import FullAttentionSpec

from hyperscale.engines.vllm.options import Options


@dataclass(frozen=True, kw_only=True)
class RaggedSpec(FullAttentionSpec):
    """The cache of all layers as that of one layer with ``num_kv_heads`` = lists, so that a block is a superblock.

    Attributes:
        options: The engine's options; of several arms, the first one's.
        step_tokens: Most tokens of a step.
        total_lists: Layers times KV heads of the whole model, of all workers together.
        arms: The options of all methods that the engine runs in turn; empty if there is only one.
    """

    options: Options
    step_tokens: int
    total_lists: int
    arms: tuple[Options, ...] = ()

    @property
    def all_arms(self) -> tuple[Options, ...]:
        """The options of every arm, by its number."""
        return self.arms or (self.options,)

    def max_memory_usage_bytes(self, vllm_config: VllmConfig) -> int:
        """Bytes of the longest request: as dense in the worst case, and the superblock it has in advance."""
        dense: int = super().max_memory_usage_bytes(vllm_config)
        return dense + int(self.page_size_bytes)

    @property
    def allocator(self) -> Any:
        """The scheduler's `SuperblockAllocator`; there is none in a worker process."""
        return self.__dict__["_allocator"]

    def attach_allocator(self, allocator: Any) -> None:
        """Leave the allocator where the connector finds it.

        vLLM makes the cache manager and the connector independently of each other. The spec is the one object that it
        hands to both. The attribute is no field of the dataclass: it takes no part in comparison or copies.
        """
        object.__setattr__(self, "_allocator", allocator)

    @classmethod
    def merge(cls, specs: list[Self]) -> Self:
        """The spec of a group; vLLM's own merge would lose the fields added here."""
        assert all(spec == specs[0] for spec in specs), "the layers share one tensor and one spec"
        return specs[0]
