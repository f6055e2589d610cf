"""The chains in flight: admission, one decode step after another, finish."""

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hyperscale.engines.base import Chain, Glimpse, Request, Sampling
from hyperscale.engines.detokenize import Decoder, end_ids
from hyperscale.engines.live_chain import Live
from hyperscale.engines.sampling import draw, force
from hyperscale.engines.steering import Steer
from hyperscale.engines.torch import attention
from hyperscale.kv.cache import RaggedCache
from hyperscale.kv.formats import AUTO
from hyperscale.kv.ledger import Ledger
from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.kv.row_index import Ints
from hyperscale.kv.snapshot import Snapshot
from hyperscale.methods.core.base import DecodeStep, Entrant, Host, Method
from hyperscale.utils import counter_rng

_MULTIPLE = 16  # Rows of a decode batch: CPU matrix products round a row alike in every multiple of 8, not in others.


class Batch:
    """State of one call of `TorchEngine.generate`.

    Attributes:
        cache: The live entries of all chains in flight.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        method: Method,
        sampling: Sampling,
        *,
        slots: int,
        device: torch.device,
        kv_dtype: str = AUTO,
        watch: Callable[[Glimpse], None] | None = None,
    ) -> None:
        """Allocate an empty batch.

        Args:
            model: A transformers causal LM after `attention.install`.
            tokenizer: Its tokenizer.
            method: The method whose state the batch keeps.
            sampling: How tokens are drawn.
            slots: Most chains in flight.
            device: Where the model is.
            kv_dtype: What the cache keeps keys and values in, as `TorchEngine` takes it.
            watch: Called after every token of every chain.

        Raises:
            EngineError: The cache cannot be kept in this type, or the tokenizer cannot steer as the sampling asks.
            MethodError: The method cannot run on this model.
        """
        self._model, self._method, self._sampling, self._slots, self._device = model, method, sampling, slots, device
        config = model.config
        heads = config.num_key_value_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        attentions = [layer.self_attn for layer in model.model.layers]
        sizes = (len(attentions), heads, head_dim, slots)
        self.cache = RaggedCache(*sizes, dtype=model.dtype, device=device, kv_dtype=kv_dtype)
        self._state = method.start(Host(attentions, config, heads, slots, device, model.model.rotary_emb))
        self._decoder = Decoder(tokenizer, sampling.stop)
        self._end = end_ids(model, tokenizer)
        self._steer = Steer(tokenizer, sampling.steering) if sampling.steering else None
        self._vocabulary = min(len(tokenizer), config.vocab_size)
        self._watch, self._rows = watch, len(attentions) * heads
        self._live: list[Live] = []
        self._resumed: list[tuple[Live, Snapshot]] = []
        self._next: Request | None = None
        self._prompt: tuple[Request, PrefilledPrompt, Tensor, Ints] | None = None
        # Per chain: last token, its position, noise key, tokens generated. Rows past the batch are padding.
        self._table = torch.zeros(4, -(-self._slots // _MULTIPLE) * _MULTIPLE, dtype=torch.int64, device=self._device)

    def advance(self, waiting: Iterator[Request]) -> list[Chain] | None:
        """One decode step for the chains in flight, then admission, then one token for all.

        Returns:
            The chains that finished; None when nothing is left to do.
        """
        logits = [self._decode()] if self._live else []
        decoded = len(self._live)
        logits += self._admit(waiting)
        if not logits:
            return None
        n = len(self._live)
        table = self._table[:, :n]
        tokens, logprobs, greedy = self._next_tokens(torch.cat(logits), table)
        table[0] = tokens
        table[1] += 1
        table[3] += 1
        # The one time per step that the host waits for the device.
        held = self.cache.lens[:, :n].sum((0, 2))
        read = self.cache.read[:, :n].sum((0, 2)) if self._method.kind == "selector" else held
        due = self._state.chains_to_prune(DecodeStep(table[1], self.cache.lens[:, :n]))
        full = self.cache.full_rows(decoded)
        parts = [tokens, read, held, logprobs.view(torch.int64), greedy.to(torch.int64)]
        parts += [full.view(-1).to(torch.int64), *([] if due is None else [due.to(torch.int64)])]
        packed = torch.cat(parts).cpu().numpy()
        self._record(*packed[: 5 * n].reshape(5, n))
        filled = packed[5 * n : 5 * n + full.numel()].astype(bool).reshape(len(full), full.shape[1])
        pruned = [] if due is None else np.flatnonzero(packed[5 * n + full.numel() :]).tolist()
        if pruned:  # before a branch takes a copy of the chain
            self.cache.prune(pruned, self._state.prune)
            filled[:, self._rows_of([chain for chain in pruned if chain < decoded])] = False
        finished, gone = self._ends()
        self._restructure(filled, gone, changed=n != decoded or bool(pruned))
        return finished

    def _next_tokens(self, logits: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Next token of every chain, its log-probability, and whether it is the most probable one (if forced)."""
        tokens, logprobs = draw(logits[:, : self._vocabulary], table[2], table[3], self._sampling)
        given = [chain.given for chain in self._live]
        if max(given) < 0:
            return tokens, logprobs, torch.zeros_like(tokens)
        wanted = torch.tensor(given, device=self._device)
        forced = wanted >= 0
        scores, greedy = force(logits, wanted.clamp(min=0))
        return torch.where(forced, wanted, tokens), torch.where(forced, scores, logprobs), greedy & forced

    def _decode(self) -> Tensor:
        n = len(self._live)
        self._state.begin(DecodeStep(self._table[1, :n], self.cache.lens[:, :n]))
        padded = self._table[:, : -(-n // _MULTIPLE) * _MULTIPLE, None]
        current = attention.Decode(self._state, self.cache, observed=self._method.needs_attention)
        return attention.forward(self._model, current, padded[0], padded[1])[:n]

    def _admit(self, waiting: Iterator[Request]) -> list[Tensor]:
        """Fill free slots; returns the logits after each admitted chain's prompt, (chains, vocabulary) per prompt."""
        logits = []
        while len(self._live) < self._slots:
            request = self._next or next(waiting, None)
            if request is None:
                self._prompt = None
                break
            group = [request]
            room = self._slots - len(self._live)
            self._next = next(waiting, None)
            while self._next and len(group) < room and self._alike(self._next, request):
                group.append(self._next)
                self._next = next(waiting, None)
            logits.append(self._enter(group))
            if self._next is None or not self._alike(self._next, request):
                self._prompt = None
        return logits

    def _alike(self, one: Request, other: Request) -> bool:
        """Whether two chains can start from the same prefill: a rule may cut the prompt by what is to come."""
        same_length = self._method.length_invariant or one.max_new_tokens == other.max_new_tokens
        return same_length and one.prompt_ids == other.prompt_ids

    def _enter(self, group: list[Request]) -> Tensor:
        for request in group:
            request.check()
        started = perf_counter()
        room = self._steer.room if self._steer else 0
        if self._prompt is None or not self._alike(self._prompt[0], group[0]):
            self._prompt = (group[0], *self._prefill(group[0].prompt_ids, group[0].max_new_tokens + room))
        _, prompt, logits, lens = self._prompt
        first = len(self._live)
        entrants = [
            Entrant(counter_rng.key(self._sampling.seed, request.problem, request.chain), request.max_new_tokens + room)
            for request in group
        ]
        self.cache.admit(prompt, lens, len(group))
        self._state.admit(first, entrants, prompt)
        rows = [[0, prompt.length - 1, entrant.key, 0] for entrant in entrants]
        self._table[:, first : first + len(group)] = torch.tensor(rows, dtype=torch.int64).T.to(self._device)
        for request in group:
            steer = None if request.forced else self._steer
            ledger = Ledger(lens.size, request.checkpoints)
            self._live.append(Live(request, ledger, started, request.max_new_tokens, steer))
        return logits.expand(len(group), -1)

    def _prefill(self, ids: tuple[int, ...], limit: int) -> tuple[PrefilledPrompt, Tensor, Ints]:
        current = attention.Prefill(self._state, limit)
        tokens = torch.tensor([ids], device=self._device)
        positions = torch.arange(len(ids), device=self._device)[None]
        logits = attention.forward(self._model, current, tokens, positions)
        prompt = current.prompt()
        return prompt, logits, prompt.lens.cpu().numpy()

    def _record(self, tokens: Ints, read: Ints, held: Ints, logprobs: Ints, greedy: Ints) -> None:
        """Book a step; log-probabilities come as the bits of float64."""
        replaced = {}
        numbers = logprobs.view(np.float64).tolist()
        rows = zip(self._live, tokens.tolist(), read.tolist(), held.tolist(), numbers, greedy.tolist(), strict=True)
        for index, (chain, token, seen, entries, logprob, best) in enumerate(rows):
            chain.greedy &= bool(best)
            if (taken := chain.take(token, seen, entries, logprob, self._end)) != token:
                replaced[index] = taken
            if self._watch is not None:
                text = partial(self._decoder.text, chain.ids)
                self._watch(Glimpse(chain.request, len(chain.ids), entries / self._rows, text))
        if replaced:  # the next step has to process what the chains have got
            at, ids = torch.tensor([list(replaced), list(replaced.values())], device=self._device)
            self._table[0, at] = ids

    def _ends(self) -> tuple[list[Chain], list[int]]:
        """Finish what has ended and start the branches that are due; returns the chains and the rows to release."""
        finished, gone = [], []
        for index, chain in enumerate(self._live):
            reason = chain.reason(self._end, self._decoder)
            if reason != "stop" and chain.answers_here():
                tables = (self._table, *self._state.tensors)
                kept = None if reason else Snapshot.take(self.cache, index, tables)
                self._live[index] = chain.branch(kept)
            elif reason:
                gone.append(index)
                if chain.parent is None:
                    finished.append(chain.finished(reason, self._decoder))
                    continue
                parent = chain.rejoin(reason, self._decoder)
                if chain.kept is None:
                    finished.append(parent.finished("length", self._decoder))
                else:
                    self._resumed.append((parent, chain.kept))
        return finished, gone

    def _rows_of(self, chains: list[int]) -> Ints:
        """Numbers of the rows of some chains."""
        heads = self.cache.kv_heads
        return (np.asarray(chains, dtype=np.int64)[:, None] * heads + np.arange(heads)).ravel()

    def _restructure(
        self, full: np.ndarray[tuple[int, int], np.dtype[np.bool_]], gone: list[int], changed: bool
    ) -> None:
        """Move rows that are full, release rows, go on with chains set aside; then bring the index up to date."""
        changed |= bool(gone)
        full[:, self._rows_of([chain for chain in gone if chain * self.cache.kv_heads < full.shape[1]])] = False
        if full.any():
            self.cache.grow(full)
            changed = True
        if gone:
            dst, src = self.cache.remove(gone)
            if dst:
                to, of = torch.tensor([dst, src], device=self._device)
                for tensor in (self._table, *self._state.tensors):
                    tensor[:, to] = tensor[:, of]
            for target, source in zip(dst, src, strict=True):
                self._live[target] = self._live[source]
            del self._live[self.cache.chains :]
        for parent, kept in self._resumed:  # a branch has just left: there is room
            kept.restore(self.cache, (self._table, *self._state.tensors))
            self._live.append(parent)
        self._resumed.clear()
        if changed:
            self.cache.reindex()
