"""Base classes of the attention backends of all devices."""

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor
from vllm.v1.attention.backend import AttentionImpl


class RaggedImpl(AttentionImpl):
    """The object that vLLM's attention layer keeps; `attend` does the work."""

    def __init__(self, num_heads: int, head_size: int, scale: float, num_kv_heads: int, *args: Any, **kw: Any) -> None:
        self.num_heads, self.head_size, self.scale, self.num_kv_heads = num_heads, head_size, scale, num_kv_heads

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Never called: the layers call an operator of our own, which takes the verdicts too."""
        raise NotImplementedError

    @abstractmethod
    def attend(
        self, step: Any, layer: int, queries: Tensor, keys: Tensor, values: Tensor, logits: Tensor | None, out: Tensor
    ) -> None:
        """Attention of one layer for a batch of decode steps and chunks.

        Args:
            step: The batch, as the backend's builder describes it.
            layer: The layer.
            queries: (tokens, query heads, head_dim), after RoPE; tokens past the batch are padding.
            keys: (tokens, heads, head_dim), after RoPE.
            values: As keys.
            logits: (tokens, heads), DMS's; above 0 evicts the token before, or the token itself, as the checkpoint's
                format says. None if there are none.
            out: (tokens, query heads, head_dim), written for the tokens of the batch.
        """

    @abstractmethod
    def merge(
        self, step: Any, layer: int, positions: Tensor, queries: Tensor, keys: Tensor, values: Tensor, logits: Tensor
    ) -> None:
        """Before RoPE, put means in place of keys and values, for a method that merges (`WorkerDMC.merge`).

        Args:
            step: As in `attend`.
            layer: The layer.
            positions: (tokens,); tokens past the batch are padding.
            queries: As in `attend`, before RoPE.
            keys: (tokens, heads, head_dim), contiguous, before RoPE; written for the tokens of the batch.
            values: Likewise.
            logits: (tokens, heads) float32, contiguous; written likewise: above 0 where a token is merged.
        """


class RaggedBackendMixin:
    """The methods by which vLLM finds a backend's parts; to stand in front of vLLM's own backend class.

    Attributes:
        impl_class: Attends.
        builder_class: Describes a step to the attention layers.
    """

    # vLLM then leaves it to `RaggedImpl.attend` to write keys and values.
    forward_includes_kv_cache_update: ClassVar[bool] = True
    impl_class: ClassVar[type]
    builder_class: ClassVar[type]

    @staticmethod
    def get_name() -> str:
        """The place in vLLM's registry that is open to plugins."""
        return "CUSTOM"

    @classmethod
    def get_impl_cls(cls) -> Any:
        """The class that attends."""
        return cls.impl_class

    @classmethod
    def get_builder_cls(cls) -> Any:
        """The class that describes a step."""
        return cls.builder_class
