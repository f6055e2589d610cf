"""Runs ``kvpress:NAME``: presses of kvpress on transformers' own cache, one chain at a time.

A chain never shares a batch, as presses know one cache length for a whole batch. So a chain cannot depend on others,
and its life is a loop: prefill under the press, then a token a step, until it ends.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from hyperscale.engines.base import Chain, ChainProgress, Engine, Request, Sampling
from hyperscale.engines.config_check import check_config
from hyperscale.engines.detokenize import Decoder, end_ids
from hyperscale.engines.kvpress.session import PressSession
from hyperscale.engines.live_chain import Finish, LiveChain
from hyperscale.engines.sampling import check_sampling, draw_tokens, mark_tokens, score_tokens
from hyperscale.engines.steering import TokenSteering
from hyperscale.engines.vocabulary import Vocabulary
from hyperscale.kv.ledger import Ledger
from hyperscale.kv.trace import dense_prefill_reads
from hyperscale.methods.kvpress.method import KVPress
from hyperscale.models.context import context_limit
from hyperscale.utils import counter_rng

Watch = Callable[[ChainProgress], None]


class KVPressEngine(Engine):
    """Runs a transformers causal LM with a press in force.

    Attributes:
        name: Name of the engine.
        model: The model, in eval mode.
        tokenizer: Its tokenizer.
        method: The method.
    """

    name = "kvpress"

    def __init__(self, model: Any, tokenizer: Any, method: KVPress) -> None:
        """Prepare a model for generation.

        Raises:
            ModelError: The architecture is not supported.
        """
        check_config({**model.config.to_dict(), "model_type": model.config.model_type})
        self.model, self.tokenizer, self.method = model, tokenizer, method

    def generate(self, requests: Iterable[Request], sampling: Sampling, watch: Watch | None = None) -> Iterator[Chain]:
        """See `Engine.generate`.

        Raises:
            EngineError: A request or the sampling settings have no meaning, or the press fails on this model.
            ModelError: The model's attention needs more than kvpress computes.
        """
        check_sampling(sampling)
        generation = _Generation(self, sampling, watch)
        for request in requests:
            request.check(
                context=context_limit(self.model.config.to_dict()),
                vocabulary=self.model.config.vocab_size,
                branch_tokens=generation.branch_tokens(request),
            )
            # The mode must not leak into the caller's code between two chains.
            with torch.inference_mode():
                chain = generation.run_chain(request)
            yield chain


class _Generation:
    """One call of `KVPressEngine.generate`."""

    def __init__(self, engine: KVPressEngine, sampling: Sampling, watch: Watch | None) -> None:
        self._engine = engine
        self._model, self._method, self._sampling, self._watch = engine.model, engine.method, sampling, watch
        config = self._model.config
        self._rows = config.num_hidden_layers * config.num_key_value_heads
        self._decoder = Decoder(engine.tokenizer, sampling.stop, sampling.marks, stop_in_answer=sampling.stop_in_answer)
        ends = end_ids(engine.model, engine.tokenizer)
        self._end_ids = frozenset() if sampling.ignore_ends else ends
        self._vocabulary = Vocabulary(engine.tokenizer, config.vocab_size, ends)
        self._steering = TokenSteering(engine.tokenizer, sampling) if sampling.steering else None

    def branch_tokens(self, request: Request) -> int:
        """Most tokens that a branch adds to a chain of a request."""
        return self._steering.branch_tokens(request) if self._steering and not request.forced_ids else 0

    def run_chain(self, request: Request) -> Chain:
        """Generate one chain, with a press and a cache of its own."""
        start_time = perf_counter()
        steering = None if request.forced_ids else self._steering
        # A branch may run beyond L: a press whose size follows from the length has to know.
        press = self._method.make_press(len(request.prompt_ids), request.L + self.branch_tokens(request))
        key = counter_rng.key(self._sampling.seed, request.problem, request.chain)
        session = PressSession(self._model, press, key, str(self._method))
        # A press works on the prompt once it has attended to all of itself.
        ledger = Ledger(self._rows, request.cuts, self._rows * dense_prefill_reads(len(request.prompt_ids)))
        chain = LiveChain(request, ledger, start_time, request.L, steering)
        with session.open():
            logits = session.forward(list(request.prompt_ids))
            reason = self._decode(chain, session, logits, key)
        return chain.finish(reason, self._decoder)

    def _decode(self, chain: LiveChain, session: PressSession, logits: Tensor, key: int) -> Finish:
        """Generate until a chain or a branch ends, from the logits that its next token is drawn from."""
        while True:
            self._engine.steps += 1
            token, logprob, is_greedy = self._next_token(chain, logits, key)
            chain.greedy &= is_greedy
            chain.add_token(token, session.entries_read, session.entries_held, logprob, self._end_ids)
            if self._watch is not None:
                text = partial(self._decoder.text, chain.ids, chain.request.opened)
                entries = session.entries_held / self._rows
                self._watch(ChainProgress(chain.request, len(chain.ids), entries, text))
            reason = chain.finish_reason(self._end_ids, self._decoder)
            # A chain at its L branches as well, unless it ended by itself; then it has answered.
            if reason != "stop" and chain.must_branch():
                self._run_branch(chain, session, key)
            if reason:
                return reason
            logits = session.forward(chain.ids[-1:])

    def _run_branch(self, chain: LiveChain, session: PressSession, key: int) -> None:
        """Let a chain answer where it is, and bring the session back to where it was."""
        # kvpress knows one chain at a time: the branch uses the session, which then goes back.
        snapshot = session.take_snapshot()
        branch = chain.start_branch(None)
        finish = self._decode(branch, session, session.forward(branch.ids[-1:]), key)
        branch.end_branch(finish, self._decoder)
        session.restore(snapshot)

    def _next_token(self, chain: LiveChain, logits: Tensor, key: int) -> tuple[int, float, bool]:
        """The next token, its log-probability, and whether it is the most probable one (if forced)."""
        if chain.forced_id >= 0:
            logprobs, greedy = score_tokens(logits, torch.tensor([chain.forced_id], device=logits.device))
            return chain.forced_id, float(logprobs), bool(greedy)
        keys, steps = torch.tensor([[key], [len(chain.ids)]], device=logits.device)
        present = None
        if self._sampling.repetition_penalty != 1:
            present = torch.zeros(1, self._vocabulary.rows + 1, dtype=torch.bool, device=logits.device)
            ids = [*chain.request.prompt_ids, *chain.ids]
            mark_tokens(present, torch.tensor([ids], device=logits.device))
            present = present[:, : self._vocabulary.rows]
        tokens, logprobs = draw_tokens(self._vocabulary.drawable(logits), keys, steps, self._sampling, present)
        return int(tokens), float(logprobs), False
