"""Pages of a quantised cache in plain torch: every key and value as the torch engine's codec stores it."""

import torch
from torch import Tensor

from hyperscale.kv.quantization import make_codec


class QuantisedPages:
    """See `hyperscale.engines.vllm.worker.reference_attention.Pages`.

    A page is (2, N, width) bytes, its keys first; CUDA's kernels have the same bytes in another order
    (`hyperscale.engines.vllm.kernels.arguments.PagedCache`).
    """

    def __init__(self, cache: Tensor, kv_dtype: str, head_dim: int, dtype: torch.dtype) -> None:
        """Wrap the tensor that vLLM has allocated.

        Args:
            cache: (blocks, lists, N, 2 * width) bytes.
            kv_dtype: What keys and values are stored in.
            head_dim: Size of a key.
            dtype: The model's own type, which they are read in.
        """
        blocks, num_lists, self._tokens, _ = cache.shape
        self._codec = make_codec(kv_dtype, head_dim, dtype)
        self._pages = cache.view(blocks * num_lists, 2, self._tokens, self._codec.width)

    def write(self, entries: Tensor, keys: Tensor, values: Tensor) -> None:
        """See `Pages.write`."""
        page, place = entries // self._tokens, entries % self._tokens
        self._pages[page, 0, place] = self._codec.encode(keys)
        self._pages[page, 1, place] = self._codec.encode(values)

    def move(self, source: Tensor, target: Tensor, keys: Tensor, values: Tensor) -> None:
        """See `Pages.move`: as they are stored, so that nothing is rounded a second time."""
        stored = self._pages[source // self._tokens, :, source % self._tokens]
        self._pages[target // self._tokens, :, target % self._tokens] = stored

    def read(self, pages: Tensor) -> tuple[Tensor, Tensor]:
        """See `Pages.read`."""
        keys, values = self._codec.decode(self._pages[pages]).unbind(1)
        return keys, values

    def copy(self, source: Tensor, target: Tensor) -> None:
        """See `Pages.copy`."""
        self._pages[target] = self._pages[source]

    def attend(self, queries: Tensor, lens: Tensor, table: Tensor, scale: float) -> Tensor:
        """See `Pages.attend`."""
        lists, pages = table.shape
        shape = (lists, pages * self._tokens, queries.shape[-1])
        keys, values = (part.reshape(shape) for part in self.read(table.flatten().long()))
        # Behind a list's end lies what somebody else has left, which need not be finite.
        is_empty = torch.arange(keys.shape[1], device=keys.device) >= lens[:, None]
        keys, values = (part.masked_fill(is_empty[..., None], 0) for part in (keys, values))
        scores = (queries @ keys.transpose(1, 2) * scale).masked_fill(is_empty[:, None], float("-inf"))
        out: Tensor = torch.softmax(scores, dim=-1, dtype=torch.float32).to(values.dtype) @ values
        return out
