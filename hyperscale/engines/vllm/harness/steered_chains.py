"""Generates chains that steering lengthens, branches or makes answer, with vLLM: which tokens go on, the harness says.

What vLLM draws is fed to a `LiveChain`, token by token with its costs, as the torch engine does. As long as the chain
gets what vLLM has drawn, vLLM goes on by itself. Where the chain gets something else (a word in place of an end of
thinking, what closes a thinking), vLLM is asked anew: a *continuation* is a request whose tokens begin with the prompt
and all that the chain has, and go on from there. A branch is a continuation of its own beside its chain, which does not
wait for it.

So no step of vLLM depends on a decision of the harness, asynchronous scheduling stays on, and whatever a continuation
processes again gives the chain's cache and costs once more (`scheduler.continued_requests` says in which portions).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any, Protocol

from hyperscale.engines.base import Branch, Chain, ChainProgress, Request, Sampling
from hyperscale.engines.detokenize import Decoder
from hyperscale.engines.live_chain import Finish, LiveChain
from hyperscale.engines.steering import TokenSteering
from hyperscale.errors import EngineError
from hyperscale.kv.ledger import Ledger
from hyperscale.kv.trace import dense_prefill_reads


@dataclass(frozen=True)
class Continuation:
    """A request of vLLM's that goes on behind a chain's first tokens.

    Attributes:
        ids: Those tokens.
        tokens: Most tokens that vLLM is to draw.
        L: Most tokens of the chain and its branches, for rules that depend on it.
        end_ids: Tokens that end vLLM's request.
        is_streamed: Whether every token comes back as soon as it is there; else all come at the request's end.
    """

    ids: tuple[int, ...]
    tokens: int
    L: int
    end_ids: frozenset[int]
    is_streamed: bool


class Submit(Protocol):
    """Gives vLLM a request."""

    def __call__(self, request: Request, sampling: Sampling, continuation: Continuation) -> str:
        """Returns the id by which outputs come back."""


@dataclass
class _Family:
    """A chain and its branches.

    Attributes:
        chain: The finished chain, without its branches; None while it runs.
        branches: Finished branches.
        num_open: How many branches are still running.
    """

    chain: Chain | None = None
    branches: list[Branch] = field(default_factory=list)
    num_open: int = 0


@dataclass
class _Running:
    """A continuation that vLLM has.

    Attributes:
        chain: The chain or branch that it is of.
        family: That one's.
        known_ids: The chain's tokens that vLLM was given; it may not have got the last of them yet.
        drawn_ids: What vLLM has drawn behind them.
        logprobs: Of those.
        costs: Reads and peak, over all rows, up to each of the chain's tokens whose costs are known.
    """

    chain: LiveChain
    family: _Family
    known_ids: tuple[int, ...]
    drawn_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    costs: list[list[int]] = field(default_factory=list)

    def add_output(self, output: Any, prompt_tokens: int, counts_rows: bool) -> None:
        """Take over an output of vLLM's.

        Args:
            output: The output.
            prompt_tokens: P.
            counts_rows: Whether costs come with it; else nothing is evicted, and they follow from the lengths.

        Raises:
            EngineError: The request was ended by neither a token nor its length, or has no costs.
        """
        completion = output.outputs[0]
        name = f"{self.chain.request.problem}/{self.chain.request.chain}"
        if completion.finish_reason not in (None, "stop", "length"):
            raise EngineError(f"vLLM ended request {name}: {completion.finish_reason}")
        ids = list(completion.token_ids)
        self.drawn_ids += ids
        self.logprobs += [row[token].logprob for row, token in zip(completion.logprobs or (), ids, strict=False)]
        n = len(self.known_ids) + len(self.drawn_ids)
        if counts_rows:
            self.costs += (output.kv_transfer_params or {}).get("steps", [])
            if len(self.costs) != n:
                raise EngineError(f"vLLM gave no costs of request {name}")
            return
        # One row, which holds all entries: P behind the prompt, and one more with each step.
        while len(self.costs) < n:
            reads, entries = self.costs[-1][0] if self.costs else 0, prompt_tokens + len(self.costs)
            self.costs.append([reads + entries if self.costs else 0, entries])


class SteeredChains:
    """See the module."""

    def __init__(
        self,
        tokenizer: Any,
        sampling: Sampling,
        end_ids: frozenset[int],
        *,
        batch_size: int,
        num_rows: int,
        prefills_densely: bool,
        watch: Callable[[ChainProgress], None] | None,
        submit: Submit,
        step: Callable[[], Iterable[Any]],
        abort: Callable[[list[str]], None],
        check: Callable[[Request, int], None],
    ) -> None:
        """Nothing running yet.

        Args:
            tokenizer: The checkpoint's.
            sampling: How tokens are drawn.
            end_ids: Ids that end a sequence.
            batch_size: Most requests that vLLM has at once before another chain starts.
            num_rows: Layers times KV heads, if vLLM gives costs; 0 if nothing is evicted.
            prefills_densely: See `Method`; what other prompts read comes with the costs.
            watch: As in `Engine.generate`.
            submit: Gives vLLM a request.
            step: Runs a step of vLLM; returns its outputs.
            abort: Takes requests back.
            check: Refuses a request that makes no sense; takes the most tokens that a branch adds to it, too.

        Raises:
            EngineError: The tokenizer cannot steer as the sampling asks.
        """
        self._sampling, self._end_ids, self._batch_size, self._num_rows = sampling, end_ids, batch_size, num_rows
        self._prefills_densely = prefills_densely
        self._watch, self._submit, self._step, self._abort, self._check = watch, submit, step, abort, check
        self._decoder = Decoder(tokenizer, sampling.stop, sampling.marks, stop_in_answer=sampling.stop_in_answer)
        self._steering = TokenSteering(tokenizer, sampling) if sampling.steering else None
        # A token may change what is to follow: it is looked at before too many others are drawn.
        self._is_streamed = bool(watch or sampling.stop or sampling.steering.extend)
        self._running: dict[str, _Running] = {}

    def run(self, requests: Iterable[Request]) -> Iterator[Chain]:
        """Generate the chains, each with its branches."""
        waiting = iter(requests)
        while True:
            while len(self._running) < self._batch_size and (request := next(waiting, None)) is not None:
                self._start(request)
            if not self._running:
                return
            for output in self._step():
                running = self._running.get(output.request_id)
                if running is None:  # taken back while this step ran
                    continue
                self._advance(output, running)
                family = running.family
                if family.chain is not None and not family.num_open:
                    branches = sorted(family.branches, key=lambda branch: branch.at)
                    yield replace(family.chain, branches=tuple(branches))

    def stop(self) -> None:
        """Take back all that is running."""
        if self._running:
            with suppress(Exception):
                self._abort(list(self._running))
            self._running.clear()

    def _branch_tokens(self, request: Request) -> int:
        return self._steering.branch_tokens(request) if self._steering else 0

    def _start(self, request: Request) -> None:
        """Let a chain begin."""
        self._check(request, self._branch_tokens(request))
        rows = max(self._num_rows, 1)
        reads = rows * dense_prefill_reads(len(request.prompt_ids)) if self._prefills_densely else None
        ledger = Ledger(rows, request.cuts, reads)
        self._go_on(LiveChain(request, ledger, perf_counter(), request.L, self._steering), _Family())

    def _go_on(self, chain: LiveChain, family: _Family) -> None:
        """Give vLLM a chain or branch as it stands."""
        # The last token is never processed: vLLM draws one in its place, and what is to be inserted stands.
        ids = (*chain.ids, *chain.pending_ids)[: chain.limit - 1]
        end_ids = self._end_ids
        if self._steering and chain.may_extend():
            end_ids |= self._steering.possible_end_ids
        length = chain.request.L + self._branch_tokens(chain.request)
        continuation = Continuation(ids, chain.limit - len(ids), length, end_ids, self._is_streamed)
        name = self._submit(chain.request, self._sampling, continuation)
        self._running[name] = _Running(chain, family, ids)

    def _advance(self, output: Any, running: _Running) -> None:
        """Feed an output's tokens to the chain, and see how it goes on."""
        chain, name = running.chain, output.request_id
        running.add_output(output, len(chain.request.prompt_ids), self._num_rows > 0)
        if not self._prefills_densely and (reads := (output.kv_transfer_params or {}).get("prefill_reads")) is not None:
            chain.ledger.prefill_reads = round(reads * self._num_rows)
        while len(chain.ids) < len(running.costs):
            is_as_drawn = self._add_token(running)
            reason = chain.finish_reason(self._end_ids, self._decoder)
            if reason != "stop" and chain.must_branch():
                running.family.num_open += 1
                # The branch starts from a chain of its own: this one goes on meanwhile.
                parent = replace(chain, ids=list(chain.ids), branches=[])
                self._go_on(parent.start_branch(None), running.family)
            if reason is not None:
                self._leave(name, output)
                self._end(chain, running.family, reason)
                return
            if not is_as_drawn:
                self._leave(name, output)
                self._go_on(chain, running.family)
                return
        if output.finished:  # by a token that ends only what vLLM was asked for
            self._leave(name, output)
            self._go_on(chain, running.family)

    def _add_token(self, running: _Running) -> bool:
        """Give the chain its next token; returns whether vLLM goes on as the chain does."""
        chain, known_ids = running.chain, running.known_ids
        n = len(chain.ids)
        reads, peak = running.costs[n]
        read = reads - running.costs[n - 1][0] if n else reads
        token, logprob = chain.forced_id, 0.0  # where nothing is drawn, nobody asks for its probability
        if token < 0:
            place = n - len(known_ids)
            token, logprob = running.drawn_ids[place], running.logprobs[place]
        got = chain.add_token(token, read, peak, logprob, self._end_ids)
        if self._watch is not None:
            text = partial(self._decoder.text, list(chain.ids), chain.request.opened)
            entries = (read if n else peak) / max(self._num_rows, 1)
            self._watch(ChainProgress(chain.request, len(chain.ids), entries, text))
        has = known_ids[n] if n < len(known_ids) else running.drawn_ids[n - len(known_ids)]
        # What is still to be inserted, but for a token behind which nothing comes.
        inserted = chain.pending_ids[: max(chain.limit - len(chain.ids) - 1, 0)]
        return got == has and inserted == known_ids[len(chain.ids) :]

    def _leave(self, name: str, output: Any) -> None:
        """A request of vLLM's is of no more use."""
        del self._running[name]
        if not output.finished:
            self._abort([name])

    def _end(self, chain: LiveChain, family: _Family, reason: Finish) -> None:
        """A chain or branch has ended."""
        if chain.parent is None:
            family.chain = chain.finish(reason, self._decoder)
            return
        family.branches += chain.end_branch(reason, self._decoder).branches
        family.num_open -= 1
