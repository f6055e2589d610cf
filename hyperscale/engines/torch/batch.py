"""Runs the chains in flight: admits them, decodes a token of each at a time, and lets them leave.

The life of a chain in a `Batch`:

1. *Admission.* A free place takes the next request. Its prompt is prefilled alone; the chains of a problem that follow
   each other share that prefill, and each gets a copy of what the method left of the prompt. The logits of the prompt's
   last token give a chain its first token.
2. *Decode steps.* Each step processes the last token of every chain: the method says where its entry goes and what is
   evicted, attention reads the cache, and the logits give every chain one more token. Then the host waits for the
   device, once, and counts what the step read and held.
3. *Branches.* Where steering asks for an answer, the chain is copied aside, a branch takes its place until it has
   answered, and the chain goes on from the copy.
4. *Leaving.* A chain that ends gives its entries back to the cache; the last chains take over the free numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyperscale.engines.base import Chain, ChainProgress, Request, Sampling
from hyperscale.engines.detokenize import Decoder, end_ids
from hyperscale.engines.families.rope_form import explain_rope
from hyperscale.engines.live_chain import LiveChain
from hyperscale.engines.steering import TokenSteering
from hyperscale.engines.torch import forward_pass
from hyperscale.engines.torch.static_step import StaticMode, StaticStep, head_size, padded_size, round_up
from hyperscale.engines.torch.token_draw import StepResult, TokenDraw
from hyperscale.engines.vocabulary import Vocabulary
from hyperscale.kv.cache import RaggedCache
from hyperscale.kv.formats import AUTO
from hyperscale.kv.ledger import Ledger
from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.kv.row_index import Ints
from hyperscale.kv.snapshot import Snapshot
from hyperscale.methods.core.base import Entrant, HostModel, Method
from hyperscale.models.context import context_limit
from hyperscale.utils import counter_rng

#: Called with what is in flight (requests, and how many tokens each has) and the logits of the token that comes next,
#: (chains, vocabulary), which are good until the call ends. It must not wait for the device.
ObserveLogits = Callable[[Sequence[tuple[Request, int]], Tensor], None]


@dataclass(frozen=True)
class _SharedPrefill:
    """A prefilled prompt that waiting chains may start from, too.

    Attributes:
        request: The request that it was made for.
        prompt: What the method left of the prompt.
        logits: (1, vocabulary), after the prompt's last token.
        lens: (layers, kv_heads), the entries of each row, on the host.
        reads: Entries that the prompt's queries attended to, over all rows.
    """

    request: Request
    prompt: PrefilledPrompt
    logits: Tensor
    lens: Ints
    reads: int


class Batch:
    """State of one call of `TorchEngine.generate`.

    A chain has a number, its place in `_chains`, which is also its column in the tables of `TokenDraw`, its place in
    the method's state and its number in the cache. When chains leave, all four are renumbered together.

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
        max_chains: int,
        device: torch.device,
        kv_dtype: str = AUTO,
        watch: Callable[[ChainProgress], None] | None = None,
        static: StaticMode | None = None,
        observe_logits: ObserveLogits | None = None,
    ) -> None:
        """Allocate an empty batch.

        Args:
            model: A transformers causal LM after `forward_pass.install_hooks`.
            tokenizer: Its tokenizer.
            method: The method whose state the batch keeps.
            sampling: How tokens are drawn.
            max_chains: Most chains in flight.
            device: Where the model is.
            kv_dtype: What the cache keeps keys and values in, as `TorchEngine` takes it.
            watch: Called after every token of every chain.
            static: How decode steps run on tensors that never move; None if they need not.
            observe_logits: Called in every step, once for all chains.

        Raises:
            EngineError: The cache cannot be kept in this type, or the tokenizer cannot steer as the sampling asks.
            MethodError: The method cannot run on this model.
        """
        self._model, self._method, self._sampling = model, method, sampling
        self._max_chains, self._device = max_chains, device
        config = model.config
        heads = config.num_key_value_heads
        attentions = [layer.self_attn for layer in model.model.layers]
        # Chains that there are tables for: padding of a static step has rows in all of them.
        rows = max_chains if static is None else padded_size(max_chains)
        sizes = (len(attentions), heads, head_size(config), rows)
        self.cache = RaggedCache(*sizes, dtype=model.dtype, device=device, kv_dtype=kv_dtype)
        rope = model.model.rotary_emb, explain_rope(model)
        self._state = method.start(HostModel(attentions, config, heads, rows, device, model.dtype, *rope))
        self._decoder = Decoder(tokenizer, sampling.stop, sampling.marks, stop_in_answer=sampling.stop_in_answer)
        ends = end_ids(model, tokenizer)
        self._end_ids = frozenset() if sampling.ignore_ends else ends
        self._steering = TokenSteering(tokenizer, sampling) if sampling.steering else None
        self._context = context_limit(config.to_dict())
        self._watch, self._observe_logits = watch, observe_logits
        self._rows = len(attentions) * heads
        self._chains: list[LiveChain] = []
        # Chains whose branch has just ended, with the copies that they go on from.
        self._returning: list[tuple[LiveChain, Snapshot]] = []
        self._next_request: Request | None = None  # taken from the requests to see whether it shares a prefill
        self._prefill: _SharedPrefill | None = None
        vocabulary = Vocabulary(tokenizer, config.vocab_size, ends)
        self._tokens = TokenDraw(method, self._state, self.cache, sampling, vocabulary, rows)
        self._static: StaticStep | None = None
        if static is not None:
            ids, positions = self._tokens.last_tokens, self._tokens.positions
            self._static = StaticStep(static, model, method, self._state, self.cache, ids, positions)

    def advance(self, requests: Iterator[Request]) -> list[Chain] | None:
        """One decode step for the chains in flight, then admission, then one token for all.

        Args:
            requests: Requests that wait for a free place.

        Returns:
            The chains that finished; None when nothing is left to do.
        """
        # Kernels of a static step are launched on the current device.
        with torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext():
            return self._advance(requests)

    def _advance(self, requests: Iterator[Request]) -> list[Chain] | None:
        decoding = len(self._chains)
        logits = [self._decode()] if decoding else []
        # Chains that enter now get their first token, from their prompt, together with the others' next.
        logits += self._admit(requests)
        if not logits:
            return None
        count = len(self._chains)
        forced_ids = [chain.forced_id for chain in self._chains]
        step = self._tokens.draw(logits, forced_ids, decoding, self._static, self._show_logits)
        self._record(step)
        full = step.full
        if step.prunable:  # before a branch takes a copy of the chain
            if self._static is not None:  # the graph replayed last need not be the one that the state knows of
                self._tokens.chains_to_prune(count)
            self.cache.prune(step.prunable, self._state.prune)
            # Rows that were full have room again.
            full[:, self._rows_of([chain for chain in step.prunable if chain < decoding])] = False
        finished_chains, leaving = self._end_chains()
        self._restructure(full, leaving, index_stale=count != decoding or bool(step.prunable))
        return finished_chains

    def _decode(self) -> Tensor:
        """Process the last token of every chain; returns the logits that follow, (chains, vocabulary)."""
        count = len(self._chains)
        if self._static is not None:
            self._static.decode()
            return self._static.logits[:count]
        self._state.begin(self._tokens.step_of(count))
        padded = slice(round_up(count))
        ids, positions = self._tokens.last_tokens[padded, None], self._tokens.positions[padded, None]
        current = forward_pass.DecodePass(self._state, self.cache, count, observed=self._method.needs_attention)
        return forward_pass.run(self._model, current, ids, positions)[:count]

    def _show_logits(self, logits: Tensor) -> None:
        """Show the logits of the tokens that come next, (chains, vocabulary), to whoever observes them."""
        if self._observe_logits is not None:
            self._observe_logits([(chain.request, len(chain.ids)) for chain in self._chains], logits)

    def _admit(self, requests: Iterator[Request]) -> list[Tensor]:
        """Fill free places; returns the logits after each admitted chain's prompt, (chains, vocabulary) per prompt."""
        logits = []
        while len(self._chains) < self._max_chains:
            request = self._next_request or next(requests, None)
            if request is None:
                self._prefill = None
                break
            # All that follow with the same prompt enter together, as far as there is room.
            group = [request]
            free_places = self._max_chains - len(self._chains)
            self._next_request = next(requests, None)
            while (
                self._next_request is not None
                and len(group) < free_places
                and self._share_prefill(self._next_request, request)
            ):
                group.append(self._next_request)
                self._next_request = next(requests, None)
            logits.append(self._enter(group))
            if self._next_request is None or not self._share_prefill(self._next_request, request):
                self._prefill = None  # nobody needs it any more: its memory goes back
        return logits

    def _share_prefill(self, one: Request, other: Request) -> bool:
        """Whether two chains can start from the same prefill: a rule may cut the prompt by what is to come."""
        same_length = self._method.length_invariant or one.L == other.L
        return same_length and one.prompt_ids == other.prompt_ids

    def _enter(self, group: list[Request]) -> Tensor:
        """Let chains with one prompt enter; returns their logits, (chains, vocabulary)."""
        # A branch may run beyond L: rules that depend on the length have to know.
        branch_tokens = max(self._branch_tokens(request) for request in group)
        for request in group:
            request.check(context=self._context, vocabulary=self._model.config.vocab_size, branch_tokens=branch_tokens)
        start_time = perf_counter()
        if self._prefill is None or not self._share_prefill(self._prefill.request, group[0]):
            self._prefill = self._run_prefill(group[0], group[0].L + branch_tokens)
        prompt, lens = self._prefill.prompt, self._prefill.lens
        first = len(self._chains)
        entrants = [
            Entrant(counter_rng.key(self._sampling.seed, request.problem, request.chain), request.L + branch_tokens)
            for request in group
        ]
        self.cache.admit(prompt, lens, len(group))
        self._state.admit(first, entrants, prompt)
        self._tokens.enter(first, group[0].prompt_ids, [entrant.noise_key for entrant in entrants])
        for request in group:
            steering = None if request.forced_ids else self._steering
            ledger = Ledger(lens.size, request.cuts, self._prefill.reads)
            self._chains.append(LiveChain(request, ledger, start_time, request.L, steering))
        return self._prefill.logits.expand(len(group), -1)

    def _branch_tokens(self, request: Request) -> int:
        """Most tokens that a branch adds to a chain of a request."""
        return self._steering.branch_tokens(request) if self._steering and not request.forced_ids else 0

    def _run_prefill(self, request: Request, length: int) -> _SharedPrefill:
        """Prefill a request's prompt, for chains of at most ``length`` tokens."""
        current = forward_pass.PrefillPass(self._state, length)
        tokens = torch.tensor([request.prompt_ids], device=self._device)
        positions = torch.arange(len(request.prompt_ids), device=self._device)[None]
        logits = forward_pass.run(self._model, current, tokens, positions)
        prompt = current.prompt()
        # One copy to the host for both.
        counts = torch.cat([prompt.lens.flatten(), current.count_reads()[None]]).cpu().numpy()
        return _SharedPrefill(request, prompt, logits, counts[:-1].reshape(prompt.lens.shape), int(counts[-1]))

    def _record(self, step: StepResult) -> None:
        """Give each chain its token and its costs."""
        substitutes = {}  # chain number: the token it got in place of the one that was drawn
        for number, chain in enumerate(self._chains):
            token, held = step.tokens[number], step.held[number]
            chain.greedy &= step.greedy[number]
            final_token = chain.add_token(token, step.read[number], held, step.logprobs[number], self._end_ids)
            if final_token != token:
                substitutes[number] = final_token
            if self._watch is not None:
                text = partial(self._decoder.text, chain.ids, chain.request.opened)
                self._watch(ChainProgress(chain.request, len(chain.ids), held / self._rows, text))
        if substitutes:  # the next step has to process what the chains have got
            self._tokens.substitute(substitutes)

    def _end_chains(self) -> tuple[list[Chain], list[int]]:
        """Finish what has ended and start the branches that are due; returns the chains and the numbers that leave."""
        finished_chains, leaving = [], []
        for number, chain in enumerate(self._chains):
            reason = chain.finish_reason(self._end_ids, self._decoder)
            if reason and chain.parent is None:  # before a branch that ends it takes more
                chain.kept = tuple(map(tuple, self.cache.lens[:, number].tolist()))
            if reason != "stop" and chain.must_branch():
                # A chain at its L has no need of a copy: it ends with the branch.
                snapshot = None if reason else Snapshot.take(self.cache, number, self._chain_tables)
                self._chains[number] = chain.start_branch(snapshot)
            elif reason:
                leaving.append(number)
                if chain.parent is None:
                    finished_chains.append(chain.finish(reason, self._decoder))
                    continue
                parent = chain.end_branch(reason, self._decoder)
                if chain.parent_snapshot is None:
                    finished_chains.append(parent.finish("length", self._decoder))
                else:
                    self._returning.append((parent, chain.parent_snapshot))
        return finished_chains, leaving

    def _restructure(self, full: NDArray[np.bool_], leaving: list[int], index_stale: bool) -> None:
        """Make the cache ready for the next step: room in every row, no row of a chain that left.

        Args:
            full: (layers, rows), which rows of the first chains have no free slot; is changed.
            leaving: Numbers of the chains that leave.
            index_stale: Whether the cache has changed since its index was built.
        """
        index_stale |= bool(leaving)
        # Rows of a chain that leaves need no room. Chains that have just entered have no columns in `full`.
        full[:, self._rows_of([chain for chain in leaving if chain * self.cache.kv_heads < full.shape[1]])] = False
        if full.any():
            self.cache.grow(full)
            index_stale = True
        if leaving:
            targets, sources = self.cache.remove(leaving)
            if targets:
                target_columns, source_columns = torch.tensor([targets, sources], device=self._device)
                for tensor in self._chain_tables:
                    tensor[:, target_columns] = tensor[:, source_columns]
            for target, source in zip(targets, sources, strict=True):
                self._chains[target] = self._chains[source]
            del self._chains[self.cache.chains :]
        for parent, snapshot in self._returning:  # its branch has just left, so there is room
            snapshot.restore(self.cache, self._chain_tables)
            self._chains.append(parent)
        self._returning.clear()
        if index_stale:
            self.cache.reindex()

    @property
    def _chain_tables(self) -> tuple[Tensor, ...]:
        """All tensors with a column for each chain, (any, max_chains, …)."""
        return *self._tokens.tables, *self._state.tensors

    def _rows_of(self, chains: list[int]) -> Ints:
        """Numbers of the rows of some chains."""
        heads = self.cache.kv_heads
        return (np.asarray(chains, dtype=np.int64)[:, None] * heads + np.arange(heads)).ravel()
