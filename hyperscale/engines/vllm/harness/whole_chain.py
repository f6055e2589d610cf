"""Collects what vLLM gives of a chain that it generates whole, and makes a finished chain of it, costs included.

Chains that the harness looks at token by token are another matter: `steered_chains`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isnan
from time import perf_counter
from typing import Any, Literal

from hyperscale.engines.base import Chain, ChainProgress, Request, not_a_number
from hyperscale.engines.detokenize import Decoder
from hyperscale.errors import EngineError
from hyperscale.kv.trace import KVTrace, dense_peak, dense_prefill_reads, dense_reads
from hyperscale.methods.core.base import Method


@dataclass
class WholeChain:
    """A chain that vLLM has, and what has come back of it.

    Attributes:
        request: The request.
        start_time: When vLLM was given it, by `perf_counter`.
        ids: Tokens so far.
        logprobs: Of each of them.
        reads: Its kv_reads so far; kept only while someone watches.
    """

    request: Request
    start_time: float
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reads: float = 0.0

    def add_output(self, output: Any, decoder: Decoder, watch: Callable[[ChainProgress], None] | None) -> None:
        """Take over the tokens of an output, and show the newest one to whoever watches.

        Args:
            output: The output, a ``RequestOutput`` with all tokens so far.
            decoder: Makes text of them.
            watch: As in `Engine.generate`.

        Raises:
            EngineError: vLLM ended the request otherwise than by a token or its length, or a probability is no number.
        """
        completion = output.outputs[0]
        if completion.finish_reason not in (None, "stop", "length"):
            raise EngineError(
                f"vLLM ended request {self.request.problem}/{self.request.chain}: {completion.finish_reason}"
            )
        self.ids = list(completion.token_ids)
        self.logprobs = [row[token].logprob for row, token in zip(completion.logprobs, self.ids, strict=False)]
        if any(map(isnan, self.logprobs)):
            raise not_a_number(self.request, next(n for n, value in enumerate(self.logprobs) if isnan(value)))
        if watch is None:
            return
        n = len(self.ids)
        ids = list(self.ids)
        costs = output.kv_transfer_params or {}
        reads = costs.get("kv_reads", dense_reads(len(self.request.prompt_ids), n))
        entries = reads - self.reads if n > 1 else costs.get("peak_kv", len(self.request.prompt_ids))
        self.reads = reads
        watch(ChainProgress(self.request, n, entries, lambda: decoder.text(ids)))

    def finish(self, output: Any, decoder: Decoder, method: Method) -> Chain:
        """The finished chain, with its costs.

        Args:
            output: The last output, which `add_output` has taken over.
            decoder: Makes text of the tokens.
            method: The method that was in force.

        Raises:
            EngineError: The method evicts, and vLLM gave no costs.
        """
        request, ids = self.request, self.ids
        text = decoder.text(ids)
        finish: Literal["stop", "length"] = "stop" if output.outputs[0].finish_reason == "stop" else "length"
        return Chain(
            problem=request.problem,
            chain=request.chain,
            prompt_tokens=len(request.prompt_ids),
            token_ids=tuple(ids),
            text=text,
            finish=finish,
            logprob=sum(self.logprobs),
            trace=self._trace(output.kv_transfer_params, decoder, text, method),
            seconds=perf_counter() - self.start_time,
        )

    def _trace(self, costs: dict[str, Any] | None, decoder: Decoder, text: str, method: Method) -> KVTrace:
        prompt, n = len(self.request.prompt_ids), len(self.ids)
        cuts: Sequence[Sequence[float]]  # of each: tokens, kv_reads, peak_kv
        held, reads = float(prompt), float(dense_prefill_reads(prompt))
        if method.name == "vanilla":
            # vLLM's own cache: nothing is evicted, so costs follow from the lengths.
            lengths = sorted({cut for cut in self.request.cuts if cut < n} | {n})
            cuts = [(cut, dense_reads(prompt, cut), dense_peak(prompt, cut)) for cut in lengths]
        else:
            if not costs or costs["tokens"] != n:
                raise EngineError(f"vLLM gave no costs of request {self.request.problem}/{self.request.chain}")
            cuts, held = costs["cuts"], float(costs["prefill_kv"])
            if not method.prefills_densely:  # it is evicted from while it is processed
                reads = float(costs["prefill_reads"])
        lengths = [int(cut[0]) for cut in cuts]
        return KVTrace(
            lengths=tuple(lengths),
            kv_reads=tuple(float(cut[1]) for cut in cuts),
            peak_kv=tuple(float(cut[2]) for cut in cuts),
            chars=tuple(decoder.count_chars(self.ids[:cut], text) for cut in lengths),
            logprobs=tuple(sum(self.logprobs[:cut]) for cut in lengths),
            inserted=(0,) * len(lengths),
            prefill_kv=held,
            prefill_reads=reads,
        )
