"""vLLM's view of the cache on the scheduler's side: superblocks as a KV cache spec and their manager."""

from dataclasses import dataclass
from typing import Any, Self

from vllm.config import VllmConfig
from vllm.v1.core.single_type_kv_cache_manager import SingleTypeKVCacheManager
from vllm.v1.kv_cache_interface import FullAttentionSpec

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.scheduler.superblocks import Book


@dataclass(frozen=True, kw_only=True)
class RaggedSpec(FullAttentionSpec):
    """The cache of all layers as that of one layer with ``num_kv_heads`` = lists, so that a block is a superblock.

    Attributes:
        options: The engine's options.
        chunk: Most tokens of a step.
        rows: Layers times KV heads of the whole model, of all workers together.
    """

    options: Options
    chunk: int
    rows: int

    def max_memory_usage_bytes(self, vllm_config: VllmConfig) -> int:
        """Bytes of the longest request: as dense in the worst case, and the superblock it has in advance."""
        dense: int = super().max_memory_usage_bytes(vllm_config)
        return dense + int(self.page_size_bytes)

    @property
    def book(self) -> Book:
        """The book that the scheduler's manager keeps for this spec; there is none in a worker."""
        book: Book = self.__dict__["_book"]
        return book

    def open_book(self, pool: Any) -> Book:
        """Begin the book: manager and connector share the spec, and nothing else that vLLM would give both."""
        book = Book(self.num_kv_heads, self.block_size, pool, self.options, self.chunk)
        object.__setattr__(self, "_book", book)
        return book

    @classmethod
    def merge(cls, specs: list[Self]) -> Self:
        """The spec of a group; vLLM's own merge would lose the fields added here."""
        assert all(spec == specs[0] for spec in specs), "the layers share one tensor and one spec"
        return specs[0]


class RaggedManager(SingleTypeKVCacheManager):
    """Hands superblocks to requests by the book's bound.

    vLLM's block table holds a request's first superblock only, whose id is the request's key on the workers; the others
    travel through the connector (`hyperscale.engines.vllm.plugin.connector`).

    Overrides take ``*args, **kwargs`` because the base's signatures differ between vLLM's versions.
    """

    def __init__(self, kv_cache_spec: RaggedSpec, block_pool: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(kv_cache_spec, block_pool, *args, **kwargs)
        assert not self.enable_caching, "prefix caching is refused at start-up"
        self.book = kv_cache_spec.open_book(block_pool)

    def get_num_blocks_to_allocate(
        self, request_id: str, num_tokens: int, *args: Any, apply_admission_cap: bool = False, **kwargs: Any
    ) -> int:
        """Superblocks that a request lacks; with ``apply_admission_cap`` those that should be free to admit it."""
        if apply_admission_cap and request_id not in self.book.held:
            return self.book.admission(request_id)
        return self.book.lacking(request_id, num_tokens)

    def allocate_new_blocks(self, request_id: str, num_tokens: int, *args: Any, **kwargs: Any) -> list[Any]:
        """Give a request what it lacks; vLLM is told of the first superblock only."""
        first = request_id not in self.book.held
        new = self.book.grow(request_id, num_tokens)
        if not first:
            return []
        self.req_to_blocks[request_id] = new[:1]
        return new[:1]

    def pop_blocks_for_free(self, request_id: str) -> list[Any]:
        """Take back all of a request's superblocks."""
        super().pop_blocks_for_free(request_id)
        return self.book.drop(request_id)

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
        """Superblocks go back after the workers' reports (`Book.report`), not by position."""
