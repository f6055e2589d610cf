"""The engine of ``kvpress:NAME``: presses of kvpress on transformers' own cache, one chain at a time."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from hyperscale.engines.base import Chain, Engine, Glimpse, Request, Sampling
from hyperscale.engines.detokenize import Decoder, end_ids
from hyperscale.engines.kvpress.session import Session
from hyperscale.engines.live_chain import Finish, Live
from hyperscale.engines.loading import check_config
from hyperscale.engines.sampling import check, draw, force
from hyperscale.engines.steering import Steer
from hyperscale.kv.ledger import Ledger
from hyperscale.methods.kvpress.method import KVPress
from hyperscale.utils import counter_rng


class KVPressEngine(Engine):
    """Runs a transformers causal LM with a press in force.

    A chain never shares a batch, as presses know one cache length for a whole batch; so it cannot depend on others.

    Attributes:
        name: Recorded with results.
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
        check_config(model.config)
        self.model, self.tokenizer, self.method = model, tokenizer, method

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, watch: Callable[[Glimpse], None] | None = None
    ) -> Iterator[Chain]:
        """See `Engine.generate`.

        Raises:
            EngineError: A request or the sampling settings make no sense, or the press fails on this model.
        """
        check(sampling)
        run = _Run(self, sampling, watch)
        for request in requests:
            request.check()
            # Nothing of it may leak into the caller's code between two chains.
            with torch.inference_mode():
                chain = run.chain(request)
            yield chain


class _Run:
    """One call of `KVPressEngine.generate`."""

    def __init__(self, engine: KVPressEngine, sampling: Sampling, watch: Callable[[Glimpse], None] | None) -> None:
        self._model, self._method, self._sampling, self._watch = engine.model, engine.method, sampling, watch
        config = self._model.config
        self._rows = config.num_hidden_layers * config.num_key_value_heads
        self._vocabulary = min(len(engine.tokenizer), config.vocab_size)
        self._decoder = Decoder(engine.tokenizer, sampling.stop)
        self._end = end_ids(engine.model, engine.tokenizer)
        self._steer = Steer(engine.tokenizer, sampling.steering) if sampling.steering else None

    def chain(self, request: Request) -> Chain:
        """Generate one chain."""
        started = perf_counter()
        steer = None if request.forced else self._steer
        limit = request.max_new_tokens
        press = self._method.make(len(request.prompt_ids), limit + (self._steer.room if self._steer else 0))
        key = counter_rng.key(self._sampling.seed, request.problem, request.chain)
        session = Session(self._model, press, key, str(self._method))
        live = Live(request, Ledger(self._rows, request.checkpoints), started, limit, steer)
        with session.open():
            finish = self._advance(live, session, session.forward(list(request.prompt_ids)), key)
        return live.finished(finish, self._decoder)

    def _advance(self, live: Live, session: Session, logits: Tensor, key: int) -> Finish:
        """Generate until a chain or a branch ends."""
        while True:
            token, logprob, best = self._next_token(live, logits, key)
            live.greedy &= best
            live.take(token, session.read, session.held, logprob, self._end)
            if self._watch is not None:
                text = partial(self._decoder.text, live.ids)
                self._watch(Glimpse(live.request, len(live.ids), session.held / self._rows, text))
            reason = live.reason(self._end, self._decoder)
            if reason != "stop" and live.answers_here():
                self._branch(live, session, key)
            if reason:
                return reason
            logits = session.forward(live.ids[-1:])

    def _branch(self, live: Live, session: Session, key: int) -> None:
        """Let the chain answer here, and bring it back to where it was."""
        kept = session.keep()
        branch = live.branch(None)
        finish = self._advance(branch, session, session.forward(branch.ids[-1:]), key)
        branch.rejoin(finish, self._decoder)
        session.put(kept)

    def _next_token(self, live: Live, logits: Tensor, key: int) -> tuple[int, float, bool]:
        """The next token, its log-probability, and whether it is the most probable one (if forced)."""
        if live.given >= 0:
            logprobs, best = force(logits, torch.tensor([live.given], device=logits.device))
            return live.given, float(logprobs), bool(best)
        keys, steps = torch.tensor([[key], [len(live.ids)]], device=logits.device)
        tokens, logprobs = draw(logits[:, : self._vocabulary], keys, steps, self._sampling)
        return int(tokens), float(logprobs), False
