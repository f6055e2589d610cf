"""The contract of an engine: requests in, finished chains out, each as it finishes.

Read this first to write an engine. An `Engine` is a loaded model with one method in force. `Engine.generate` draws
`Request`s from an iterable as it has room for them, and yields a `Chain` for each. What it must promise:

- *Noise.* A drawn token depends on (seed, problem, chain, step) and the logits alone, never on which chains run beside
  it. So a run that is resumed, repeated or given another batch size has the same chains. Logits are that exact on the
  CPU in float32 and float16; in bfloat16, and on a GPU, a batch of another size may round them differently.
- *Costs.* They are those of `hyperscale.kv.trace`: an engine takes them from the ledger (`hyperscale.kv.ledger`), or
  counts by itself what the ledger would count.
- *Cuts.* A chain's `KVTrace` has the costs at each of the request's cuts, so that it can later be cut to a smaller L.
- *Nothing left behind.* Settings of libraries are changed only while `generate` computes, not between two chains.

What an engine can run at all, and how it is built, is said by its provider (`hyperscale.engines.provider`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hyperscale.errors import EngineError
from hyperscale.kv.trace import KVTrace
from hyperscale.models.thinking import THINKING

if TYPE_CHECKING:
    from hyperscale.methods.core.base import Method


@dataclass(frozen=True)
class Steering:
    """How the end of thinking is forced upon a chain, after s1 (Muennighoff et al. 2025, arXiv 2501.19393, section 3).

    Attributes:
        extend: How often an end of thinking that the model draws is replaced by ``word``. An end of the sequence drawn
            while the thinking is open, or before there was any, is an end of thinking too. An end of several tokens
            stays, and the thinking is opened again behind it.
        word: The text that takes its place.
        answer: K. A chain that has not ended at a cut gets a branch of at most K drawn tokens. In front of them the
            thinking is closed where it is open, and the request's cue stands where there was none. The chain itself
            goes on from there as if there were no branch. 0: no branches.
    """

    extend: int = 0
    word: str = "Wait"
    answer: int = 0

    def __bool__(self) -> bool:
        return bool(self.extend or self.answer)


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: Softmax temperature; 0 is greedy.
        top_p: Nucleus mass in (0, 1]; 1 keeps the whole vocabulary.
        top_k: How many of the most probable tokens are kept; 0 keeps all.
        min_p: Least probability of a token, as a part of the most probable one's; 0 keeps all.
        repetition_penalty: Divides the positive logits of tokens that the prompt or the chain has, and multiplies their
            negative ones (Keskar et al. 2019, arXiv 1909.05858, section 4.1); 1 leaves all as they are.
        stop: Strings that end a chain; the text is cut before them.
        stop_in_answer: Whether they apply to the answer alone, not to a thinking; one that has a mark of thinking in it
            applies everywhere.
        seed: Together with (problem, chain, step) the only source of sampling noise.
        steering: Forced ends of thinking; not applied to requests with forced tokens.
        marks: Opening and closing of the model's thinking, if `models.thinking` lacks them.
        ignore_ends: Ends of sequences do not end a chain: it goes on behind them until L. Not with steering.
    """

    temperature: float = 0.8
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    stop_in_answer: bool = False
    seed: int = 0
    steering: Steering = Steering()
    marks: tuple[str, str] | None = None
    ignore_ends: bool = False


@dataclass(frozen=True)
class Request:
    """One chain to generate.

    Attributes:
        problem: Identifier of the problem, unique over tasks; part of the sampling noise's key.
        chain: Index of the chain among the problem's chains; part of the sampling noise's key.
        prompt_ids: Token ids of the prompt.
        L: The most tokens to generate.
        cuts: Lengths in tokens at which the trace records costs, ascending, and at which `Steering.answer` branches; it
            does at L too.
        forced_ids: Token ids to feed in place of drawn ones, L of them: the chain is these tokens, scored through the
            same cache; nothing ends it early. Empty: tokens are drawn.
        opened: The mark of the thinking that the prompt opened, as in `models.thinking.TABLE`; empty if it opened none.
        cue: How an answer begins, for a chain that has to answer and does not think.
    """

    problem: str
    chain: int
    prompt_ids: tuple[int, ...]
    L: int
    cuts: tuple[int, ...] = ()
    forced_ids: tuple[int, ...] = ()
    opened: str = THINKING
    cue: str = ""

    def check(self, *, context: int | None = None, vocabulary: int | None = None, branch_tokens: int = 0) -> None:
        """Refuse a request without a meaning, or that the model has no room for.

        Args:
            context: Most tokens of a sequence; None if unknown.
            vocabulary: Rows of the embedding; None if unknown.
            branch_tokens: Most tokens that a branch adds to the chain.

        Raises:
            EngineError: There is no prompt, nothing to generate, or not one forced token for each new one; the sequence
                is longer than the context, or the prompt has an id that the embedding has no row for.
        """
        if not self.prompt_ids or self.L < 1:
            raise EngineError(
                f"request {self.problem}/{self.chain} needs a prompt and at least one new token to generate"
            )
        if self.forced_ids and len(self.forced_ids) != self.L:
            raise EngineError(
                f"request {self.problem}/{self.chain} forces {len(self.forced_ids)} tokens and has L = {self.L}: both "
                "must be the same"
            )
        # The last forced token is scored, not processed.
        total = len(self.prompt_ids) + self.L + branch_tokens - bool(self.forced_ids)
        if context is not None and total > context:
            raise EngineError(
                f"request {self.problem}/{self.chain} may need {total:,} tokens; the model's context has {context:,}: "
                "choose a smaller --length"
            )
        if vocabulary is not None and not 0 <= min(self.prompt_ids) <= max(self.prompt_ids) < vocabulary:
            strange = next(token for token in self.prompt_ids if not 0 <= token < vocabulary)
            raise EngineError(
                f"the prompt of request {self.problem}/{self.chain} has token {strange}, and the model's embedding has "
                f"{vocabulary:,} rows: the tokenizer is another model's"
            )


def not_a_number(request: Request, tokens: int) -> EngineError:
    """The error for a model whose output is not a number after so many tokens of a chain."""
    return EngineError(
        f"the model's output for {request.problem}/{request.chain} is not a number after {tokens} tokens: its "
        "arithmetic left the range of its type, as it may in float16, so use --dtype bfloat16 or float32; or its "
        "weights are broken"
    )


@dataclass(frozen=True)
class Branch:
    """What follows a chain's first tokens when it has to answer there: the end of a run with that L.

    Attributes:
        at: The cut: number of the chain's tokens in front of the branch.
        token_ids: Ids of the branch alone, the inserted end of thinking included.
        text: Its text: the whole text is ``chain.text[:chars] + text``, with the trace's ``chars`` at ``at``.
        finish: "stop" if it ended by itself, "length" if it was cut after K tokens.
        logprob: As in the chain, of the chain's first tokens and the branch together.
        inserted: Tokens that were not drawn, of both together.
        kv_reads: Decode reads of both together, in entries.
        peak_kv: Peak of both together, in entries.
        seconds: Wall-clock time of the branch alone.
    """

    at: int
    token_ids: tuple[int, ...]
    text: str
    finish: Literal["stop", "length"]
    logprob: float
    inserted: int
    kv_reads: float
    peak_kv: float
    seconds: float


@dataclass(frozen=True)
class Chain:
    """One finished chain.

    Attributes:
        problem: As in the request.
        chain: As in the request.
        prompt_tokens: Number of prompt tokens.
        token_ids: Generated ids, the end-of-sequence token included if it was drawn.
        text: Decoded text; special tokens of the vocabulary are left out, thinking marks are kept.
        finish: "stop" if the end of sequence or a stop string was reached, "length" if cut at L.
        logprob: Sum of the log-probabilities (temperature 1) of the generated tokens, without those that steering
            inserted. Of forced tokens: over all rows of the output layer, as transformers scores them.
        trace: Costs at each cut and at the chain's end.
        seconds: Wall-clock time between admission and finish, without the branches.
        greedy: Whether every token was the most probable one; known of forced tokens only.
        branches: One for each cut, L included, at which the chain had not ended, if steering asks for answers.
        kept: (layers, KV heads), entries that each head held when the chain ended; of a full cache they would be
            ``prompt_tokens + len(token_ids) - 1``, as the last token is not processed. Empty if the engine does not
            tell.
    """

    problem: str
    chain: int
    prompt_tokens: int
    token_ids: tuple[int, ...]
    text: str
    finish: Literal["stop", "length"]
    logprob: float
    trace: KVTrace
    seconds: float
    greedy: bool = False
    branches: tuple[Branch, ...] = ()
    kept: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class ChainProgress:
    """A chain in flight, just after it got one more token.

    Attributes:
        request: The request that it answers.
        tokens: Number of its tokens so far, a branch's included.
        entries: Live entries that the token was drawn from, mean over layers and KV heads.
        text: Decodes the text so far, when it is called; good until the next token.
    """

    request: Request
    tokens: int
    entries: float
    text: Callable[[], str]


class Engine(ABC):
    """A loaded model with one KV-compression method in force.

    Attributes:
        name: Name of the engine, recorded with each chain.
        steps: Steps that it has made so far: a number that grows while it generates, by which one that hangs is told.
    """

    name: str
    steps: int = 0

    @abstractmethod
    def generate(
        self, requests: Iterable[Request], sampling: Sampling, watch: Callable[[ChainProgress], None] | None = None
    ) -> Iterator[Chain]:
        """Yield each chain when it finishes; a finished chain leaves the batch and the next request enters.

        Args:
            requests: The chains to generate; drawn from as places become free. Neighbours with the same prompt may
                share its prefill.
            sampling: How tokens are drawn.
            watch: Called with every token of every chain; it changes nothing.

        Raises:
            EngineError: A request or the sampling settings have no meaning, or the engine failed.
        """

    def switch(self, method: "Method") -> None:
        """Put another method in force, between two calls of `generate`; chains are those of an engine of its own.

        Only for engines whose provider says which of them take each other's methods (`EngineProvider.process_key`).

        Args:
            method: One of those that the engine was built for (`EngineSpec.methods`).

        Raises:
            EngineError: The engine failed.
        """
        raise AssertionError(f"an engine of {self.name} is built for each method")

    def close(self) -> None:  # noqa: B027  # optional
        """Give back what the engine holds besides memory: processes, connections. It generates nothing afterwards."""
