"""Training data of the built-in model: documents made on the fly and packed whole into rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor

from hyperscale.mini.benchmarks import GENERATORS, training_document
from hyperscale.mini.model import CONTEXT

KINDS = tuple(GENERATORS)
#: Share of tokens each kind gets, in proportion: the searches take longest to learn.
SHARES = {"aime": 1.0, "gpqa": 1.5, "lcb": 2.0}


@dataclass
class Batch:
    """Rows of packed documents.

    Attributes:
        ids: (rows, length) token ids.
        position: (rows, length) place within the document.
        document: (rows, length) number of the document in its row; padding has one of its own.
        kind: (rows, length) index in `KINDS`, -1 on padding and on each document's last token.
        weight: (rows, length) 1 where the next token is to be predicted: in the chain and the reply.
    """

    ids: Tensor
    position: Tensor
    document: Tensor
    kind: Tensor
    weight: Tensor

    def to(self, device: str) -> "Batch":
        """The batch on another device."""
        return Batch(*(getattr(self, f).to(device, non_blocking=True) for f in self.__dataclass_fields__))


def _fill(rng: Random, rows: int, length: int) -> Iterator[list[tuple[int, list[int], int]]]:
    """Rows of (kind, ids, prompt length), each packed by best fit from a pool of documents."""
    made = dict.fromkeys(range(len(KINDS)), 0.0)
    pool: list[tuple[int, list[int], int]] = []
    for _ in range(rows):
        room, row = length, []
        while room > 64:
            while len(pool) < 16:
                # The kind furthest behind its share is next.
                kind = min(made, key=made.__getitem__)
                ids, start = training_document(rng, KINDS[kind]).ids()
                made[kind] += min(len(ids), length) / SHARES[KINDS[kind]]
                pool.append((kind, ids[:length], start))
            fits = [i for i, (_, ids, _) in enumerate(pool) if len(ids) <= room]
            if not fits:
                break
            # The first document of a row is drawn freely, or long ones would never leave the pool.
            best = fits[rng.randrange(len(fits))] if room == length else max(fits, key=lambda i: len(pool[i][1]))
            row.append(pool.pop(best))
            room -= len(row[-1][1])
        yield row


def make_batch(seed: str, rows: int, length: int = CONTEXT) -> Batch:
    """A batch that is a function of its seed.

    Args:
        seed: Any text.
        rows: Number of rows.
        length: Tokens a row; longer documents are cut.
    """
    rng = Random(seed)
    ids = np.zeros((rows, length), np.int64)
    position, document, kind = np.zeros_like(ids), np.full_like(ids, -1), np.full_like(ids, -1)
    weight = np.zeros((rows, length), np.float32)
    for r, row in enumerate(_fill(rng, rows, length)):
        at = 0
        for number, (which, tokens, start) in enumerate(row):
            end = at + len(tokens)
            ids[r, at:end] = tokens
            position[r, at:end] = np.arange(len(tokens))
            document[r, at:end] = number
            kind[r, at : end - 1] = which
            weight[r, at + start - 1 : end - 1] = 1.0
            at = end
    return Batch(*(torch.from_numpy(a) for a in (ids, position, document, kind, weight)))


class _Stream(torch.utils.data.IterableDataset[Batch]):
    def __init__(self, seed: str, rows: int, length: int) -> None:
        self.seed, self.rows, self.length = seed, rows, length

    def __iter__(self) -> Iterator[Batch]:
        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        step = worker
        while True:
            yield make_batch(f"{self.seed}-{step}", self.rows, self.length)
            step += workers


def stream(seed: str, rows: int, length: int = CONTEXT, workers: int = 0) -> Iterator[Batch]:
    """Endless batches, the same for any number of workers."""
    loader = torch.utils.data.DataLoader(
        _Stream(seed, rows, length), batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None
    )
    return iter(loader)
