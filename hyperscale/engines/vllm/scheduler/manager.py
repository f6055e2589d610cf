"""vLLM's manager of KV cache blocks, which asks `SuperblockAllocator` instead of counting tokens."""

from typing import Any

from vllm.v1.core.single_type_kv_cache_manager import SingleTypeKVCacheManager

from hyperscale.engines.vllm.cache_spec import RaggedSpec
from hyperscale.engines.vllm.scheduler.superblocks import SuperblockAllocator


class RaggedManager(SingleTypeKVCacheManager):
    """Hands superblocks to requests by the allocator's bound.

    vLLM's block table holds a request's first superblock only, whose id is the request's name on the workers; the
    others travel through the connector (`hyperscale.engines.vllm.plugin.connector`).

    Overrides take ``*args, **kwargs`` because the base's signatures differ between vLLM's versions.
    """

    def __init__(self, kv_cache_spec: RaggedSpec, block_pool: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(kv_cache_spec, block_pool, *args, **kwargs)
        assert not self.enable_caching, "prefix caching is refused at start-up"
        spec = kv_cache_spec
        self.allocator = SuperblockAllocator(
            spec.num_kv_heads, spec.block_size, block_pool, spec.options, spec.step_tokens
        )
        spec.attach_allocator(self.allocator)

    def get_num_blocks_to_allocate(
        self, request_id: str, num_tokens: int, *args: Any, apply_admission_cap: bool = False, **kwargs: Any
    ) -> int:
        """Superblocks that a request lacks; with ``apply_admission_cap`` those that should be free to admit it.

        Requests that may not be preempted are admitted so in any case, also where vLLM is told to reserve nothing.
        """
        if (apply_admission_cap or self.allocator.reserves_all) and request_id not in self.allocator.running:
            return self.allocator.count_to_admit(request_id)
        return self.allocator.count_missing(request_id, num_tokens)

    def allocate_new_blocks(self, request_id: str, num_tokens: int, *args: Any, **kwargs: Any) -> list[Any]:
        """Give a request what it lacks; vLLM is told of the first superblock only."""
        # Of later superblocks vLLM's block table would only be a copy: kernels find a request by its first one.
        is_new = request_id not in self.allocator.running
        blocks = self.allocator.allocate(request_id, num_tokens)
        if not is_new:
            return []
        self.req_to_blocks[request_id] = blocks[:1]
        return blocks[:1]

    def pop_blocks_for_free(self, request_id: str) -> list[Any]:
        """Take back all of a request's superblocks."""
        super().pop_blocks_for_free(request_id)  # the one block that vLLM knows of is among those released below
        return self.allocator.release(request_id)

    def free(self, request_id: str) -> None:
        """Return them to the pool."""
        self.block_pool.free_blocks(reversed(self.pop_blocks_for_free(request_id)))

    def cache_blocks(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is shared between requests."""

    def get_num_common_prefix_blocks(self, running_request_id: str) -> int:
        """Nothing is shared between requests."""
        return 0

    @classmethod
    def find_longest_cache_hit(cls, *args: Any, **kwargs: Any) -> Any:
        """Never called, as there is no prefix caching."""
        raise NotImplementedError("prefix caching is refused at start-up")

    def remove_skipped_blocks(self, *args: Any, **kwargs: Any) -> None:
        """Superblocks go back after the workers' reports (`SuperblockAllocator.record_usage`), not by position."""
