"""Generates the built-in model's training data: problems made on the fly and packed whole into rows."""

from collections.abc import Iterator
from random import Random

import numpy as np
import torch

from hyperscale.mini.benchmarks import GENERATORS, generate_training_problem
from hyperscale.mini.model import CONTEXT
from hyperscale.retrofit.packing import RowPacker, TokenizedDocument, TrainingBatch, collate

#: Names of the kinds of documents; a document's kind is an index in this.
KINDS = tuple(GENERATORS)
#: Share of tokens each kind gets, in proportion: the searches take longest to learn.
SHARES = {"aime": 1.0, "gpqa": 1.5, "lcb": 2.0}
#: Documents among which a row's next one is chosen.
POOL_SIZE = 16
#: A row with fewer free places is full: hardly any document is shorter.
LEAST_ROOM = 65


def _generate_documents(rng: Random, length: int) -> Iterator[TokenizedDocument]:
    """Endless documents, cut to ``length`` tokens, whose kinds get their shares of the tokens."""
    progress = [0.0] * len(KINDS)  # tokens of each kind, in units of its share
    while True:
        # The kind furthest behind its share is next.
        kind = min(range(len(KINDS)), key=progress.__getitem__)
        ids, prompt = generate_training_problem(rng, KINDS[kind]).ids()
        progress[kind] += min(len(ids), length) / SHARES[KINDS[kind]]
        yield TokenizedDocument(np.array(ids[:length], np.int32), start=prompt, kind=kind)


def make_batch(seed: str, rows: int, length: int = CONTEXT) -> TrainingBatch:
    """A batch that is a function of its seed; the loss counts chains and replies.

    Args:
        seed: Any text.
        rows: Number of rows.
        length: Tokens a row; longer documents are cut.
    """
    # One generator for documents and packing alike: the order of draws decides the shipped model's data.
    rng = Random(seed)
    packer = RowPacker(_generate_documents(rng, length), length, rng, pool_size=POOL_SIZE, least_room=LEAST_ROOM)
    return collate([packer.fill_row() for _ in range(rows)], length)


class _Stream(torch.utils.data.IterableDataset[TrainingBatch]):
    def __init__(self, seed: str, rows: int, length: int) -> None:
        self.seed, self.rows, self.length = seed, rows, length

    def __iter__(self) -> Iterator[TrainingBatch]:
        # Worker i of n makes batches i, i + n, …; the loader takes the workers' in turn, so their order is 0, 1, 2, …
        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        step = worker
        while True:
            yield make_batch(f"{self.seed}-{step}", self.rows, self.length)
            step += workers


def stream(seed: str, rows: int, length: int = CONTEXT, workers: int = 0) -> Iterator[TrainingBatch]:
    """Endless batches, the same for any number of workers."""
    loader = torch.utils.data.DataLoader(
        _Stream(seed, rows, length), batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None
    )
    return iter(loader)
