"""Scores documents under a method, token by token, against the full cache's predictions.

A document's first tokens are prefilled as a prompt, under the method's rule for prompts; each of the others is
predicted from what the method has left, scored, and then processed in the place of a drawn token. So evictions happen
as in generation. All documents of a batch go in step, as they have one length.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyperscale.engines.base import ChainProgress, Request
from hyperscale.likelihood.documents import Document
from hyperscale.likelihood.full_cache import FullCache

if TYPE_CHECKING:
    from hyperscale.engines.torch.engine import TorchEngine

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TokenScores:
    """Scores of the tokens behind the prompt, (documents, tokens) each.

    Attributes:
        nats: Minus the log-probability under the method.
        full_nats: The same with the full cache.
        kl: KL(full || compressed) of the distributions over the whole vocabulary, in nats.
        kept: Entries that the token was predicted from, mean over layers and KV heads.
        full: (tokens,) entries of the full cache there.
        reads: (documents,) entries that the decode steps read, mean over layers and KV heads.
        full_reads: What the full cache reads in them.
    """

    nats: Floats
    full_nats: Floats
    kl: Floats
    kept: Floats
    full: Floats
    reads: Floats
    full_reads: float


def score_documents(
    engine: "TorchEngine",
    documents: Sequence[Document],
    reference: FullCache,
    prompt_tokens: int,
    step: Callable[[int], None] | None = None,
    *,
    seed: int = 0,
) -> TokenScores:
    """Score documents under an engine's method.

    Args:
        engine: The method's.
        documents: Those that the reference was made of, in its order.
        reference: The full cache's predictions.
        prompt_tokens: First tokens that are prefilled and not scored.
        step: Called with the number of tokens that were scored since it was called last.
        seed: Of the noise of methods that have any.

    Raises:
        EngineError: A document is longer than the model's context, or the output is not a number.
    """
    length = len(documents[0].ids)
    scored = length - prompt_tokens
    kept = np.zeros((len(documents), scored))
    reads = np.zeros(len(documents))
    nats, kl = [], []

    def watch(progress: ChainProgress) -> None:
        kept[int(progress.request.problem), progress.tokens - 1] = progress.entries

    for first in range(0, len(documents), engine.batch_size):
        batch = range(first, min(first + engine.batch_size, len(documents)))
        comparison = _Comparison(
            reference, reference.hidden[first : batch.stop], [documents[i].ids for i in batch], prompt_tokens, engine
        )
        requests = [
            Request(str(i), 0, documents[i].ids[:prompt_tokens], scored, forced_ids=documents[i].ids[prompt_tokens:])
            for i in batch
        ]

        def observe(flight: Sequence[tuple[Request, int]], logits: Tensor, each: "_Comparison" = comparison) -> None:
            each.observe(flight, logits)
            if step is not None:
                step(len(flight))

        for chain in engine.score(requests, observe, watch, seed=seed):
            reads[int(chain.problem)] = chain.trace.kv_reads[-1]
        nats.append(comparison.nats.cpu())
        kl.append(comparison.kl.cpu())
    full = np.arange(prompt_tokens, length, dtype=np.float64)
    return TokenScores(
        nats=torch.cat(nats).double().numpy(),
        full_nats=reference.nats[:, prompt_tokens - 1 :].numpy(),
        kl=torch.cat(kl).double().numpy(),
        kept=kept,
        full=full,
        reads=reads,
        full_reads=float(full[1:].sum()),  # the first token is predicted by the prefill
    )


class _Comparison:
    """Compares a batch's predictions with the full cache's, on the device, without waiting for it."""

    def __init__(
        self,
        reference: FullCache,
        hidden: Tensor,
        ids: Sequence[Sequence[int]],
        prompt_tokens: int,
        engine: "TorchEngine",
    ) -> None:
        self._reference, self._prompt = reference, prompt_tokens
        self._hidden = hidden.to(engine.device)
        self._ids = torch.tensor(ids, device=engine.device)
        scored = self._ids.shape[1] - prompt_tokens
        self.nats = torch.zeros(len(ids), scored, device=engine.device)
        self.kl = torch.zeros(len(ids), scored, device=engine.device)

    def observe(self, flight: Sequence[tuple[Request, int]], logits: Tensor) -> None:
        """Score the next token of every document, see `ObserveLogits`."""
        token = flight[0][1]
        assert {tokens for _, tokens in flight} == {token}, "documents of one length go in step"
        assert len(flight) == len(self._ids), "documents of a batch enter together"
        position = self._prompt + token
        full = torch.log_softmax(self._reference.logits(self._hidden[:, position - 1]).float(), dim=-1)
        ours = torch.log_softmax(logits.float(), dim=-1)
        self.nats[:, token] = -ours.gather(1, self._ids[:, position, None])[:, 0]
        # Never negative but for rounding.
        self.kl[:, token] = (full.exp() * (full - ours)).sum(-1).clamp(min=0)
