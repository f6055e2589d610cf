"""Packs whole documents into rows of equal length, by best fit, and rows into training batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from random import Random
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from hyperscale.utils.device_copy import copy_to


@dataclass(frozen=True)
class TokenizedDocument:
    """One text that attends to nothing but itself.

    Attributes:
        ids: (tokens,) int32.
        start: Place of the first token that the loss predicts, at least 1; beyond the end, none is.
        kind: Kind of text, from 0; each kind can have a compression target of its own.
    """

    ids: np.ndarray[Any, np.dtype[np.int32]]
    start: int
    kind: int = 0


@dataclass(frozen=True)
class TrainingBatch:
    """Rows of packed documents, each tensor (rows, length).

    Attributes:
        ids: Token ids, 0 on padding.
        position: Place within the document.
        document: Number of the document in its row; -1 on padding.
        kind: Kind of the token's document; -1 on padding and on each document's last token, which has no successor.
        weight: 1 where the loss counts the prediction of the next token.
    """

    ids: Tensor
    position: Tensor
    document: Tensor
    kind: Tensor
    weight: Tensor

    def to(self, device: torch.device) -> Self:
        """The batch on another device; the host does not wait for the copies."""
        return type(self)(*(copy_to(getattr(self, tensor.name), device) for tensor in fields(self)))

    def counted(self) -> "CountedPlaces":
        """The tokens that the loss counts; on a CPU nothing waits for them."""
        weight = self.weight.flatten()
        places = weight.nonzero()[:, 0]
        return CountedPlaces(places, weight[places])


@dataclass(frozen=True)
class CountedPlaces:
    """The tokens of a batch that its loss counts.

    Attributes:
        places: (n,) where they are, rows laid end to end.
        weights: (n,) how much each counts.
    """

    places: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Self:
        """The same on another device; the host does not wait for the copies."""
        return type(self)(copy_to(self.places, device), copy_to(self.weights, device))


class RowPacker:
    """Fills rows with whole documents by best fit.

    A row takes the longest document of a pool that still fits, until none does. Its first document is drawn freely: by
    best fit alone, long documents would always come first and short ones would collect in the pool.

    Args:
        documents: The documents, none longer than a row; no more are drawn than the pool has room for.
        length: Tokens of a row.
        rng: Draws each row's first document.
        pool_size: Documents among which the next is chosen.
        least_room: A row with fewer free places is full.
        joined: Whether the documents of a row are one to attention.
    """

    def __init__(
        self,
        documents: Iterator[TokenizedDocument],
        length: int,
        rng: Random,
        *,
        pool_size: int,
        least_room: int,
        joined: bool = False,
    ) -> None:
        self._documents, self._length, self._rng = documents, length, rng
        self._pool_size, self._least_room, self._joined = pool_size, least_room, joined
        self._pool: list[TokenizedDocument] = []

    def fill_row(self) -> list[TokenizedDocument]:
        """The documents of the next row; none if the documents have ended."""
        row: list[TokenizedDocument] = []
        room = self._length
        while room >= self._least_room:
            # Refilled before each choice, so that a choice is always among as many documents, the last ones aside.
            self._pool.extend(islice(self._documents, self._pool_size - len(self._pool)))
            # The order of these draws and choices decides the shipped model's data: a test pins it.
            fitting = [i for i, document in enumerate(self._pool) if len(document.ids) <= room]
            if not fitting:
                break
            choice = max(fitting, key=lambda i: len(self._pool[i].ids)) if row else self._rng.choice(fitting)
            row.append(self._pool.pop(choice))
            room -= len(row[-1].ids)
        return row

    def batches(self, rows: int) -> Iterator[TrainingBatch]:
        """Batches until the documents end; the last one may have empty rows."""
        while any(batch := [self.fill_row() for _ in range(rows)]):
            yield collate(batch, self._length, joined=self._joined)


def collate(rows: Sequence[Sequence[TokenizedDocument]], length: int, *, joined: bool = False) -> TrainingBatch:
    """Lay out rows of documents as tensors, each row's documents from the left, padding after them.

    Args:
        rows: The documents of each row, together no longer than ``length``.
        length: Tokens of a row.
        joined: Make them one document to attention, as long as the row, so that evictions far beyond the window are
            learned from short documents too. The loss counts the same tokens.
    """
    ids = np.zeros((len(rows), length), np.int64)
    position, number, kind = np.zeros_like(ids), np.full_like(ids, -1), np.full_like(ids, -1)
    weight = np.zeros(ids.shape, np.float32)
    for r, row in enumerate(rows):
        begin = 0
        for n, document in enumerate(row):
            end = begin + len(document.ids)
            ids[r, begin:end] = document.ids
            position[r, begin:end] = np.arange(len(document.ids))
            number[r, begin:end] = n
            kind[r, begin : end - 1] = document.kind
            # The logits of a token predict the next one, so the weight of document.start stands one place before it.
            weight[r, begin + document.start - 1 : end - 1] = 1.0
            begin = end
        if joined and begin:
            position[r, :begin], number[r, :begin] = np.arange(begin), 0
            kind[r, : begin - 1] = row[0].kind  # the last token of each but the last document has a successor now
    return TrainingBatch(*(torch.from_numpy(array) for array in (ids, position, number, kind, weight)))
