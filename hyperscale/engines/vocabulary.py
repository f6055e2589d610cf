"""Tells which rows of a model's output layer are tokens: the others are never drawn.

Output layers are often padded to a round number of rows, and the ids of a tokenizer may have gaps. No text stands for
such a row, and what a model makes of it says nothing.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Vocabulary:
    """The rows of an output layer that are tokens.

    Attributes:
        rows: Rows up to the last token.
        unused: Those below ``rows`` that no token has, ascending.
    """

    def __init__(self, tokenizer: Any, output_rows: int, end_ids: Iterable[int] = ()) -> None:
        """Find the rows.

        Args:
            tokenizer: The tokenizer; one that does not list its tokens has the ids from 0 to its length.
            output_rows: Rows of the output layer.
            end_ids: Ids that end a sequence, which are tokens whether the tokenizer knows them or not.
        """
        get_vocab = getattr(tokenizer, "get_vocab", None)
        ids = set(get_vocab().values() if get_vocab else range(len(tokenizer))) | set(end_ids)
        ids = {i for i in ids if 0 <= i < output_rows}
        # A length counts tokens: with a gap below them, the last ids lie beyond it.
        self.rows = max(ids, default=-1) + 1
        self.unused = tuple(i for i in range(self.rows) if i not in ids) if len(ids) < self.rows else ()
        self._unused_index: Tensor | None = None

    def drawable(self, logits: Tensor) -> Tensor:
        """The logits of tokens.

        Args:
            logits: (any, output_rows).

        Returns:
            (any, rows), with minus infinity for unused rows.
        """
        logits = logits[:, : self.rows]
        if not self.unused:
            return logits
        if self._unused_index is None or self._unused_index.device != logits.device:
            self._unused_index = torch.tensor(self.unused, device=logits.device)
        return logits.index_fill(1, self._unused_index, float("-inf"))
