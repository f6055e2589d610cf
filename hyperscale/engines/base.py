"""The contract of an engine: requests in, finished chains out, as they finish."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from hyperscale.kv.trace import KVTrace


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: Softmax temperature; 0 is greedy.
        top_p: Nucleus mass in (0, 1]; 1 keeps the whole vocabulary.
        stop: Strings that end a chain; the text is cut before them.
        seed: Together with (problem, chain, step) the only source of sampling noise.
    """

    temperature: float = 0.8
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Request:
    """One chain to generate.

    Attributes:
        problem: Identifier of the problem, unique over tasks; part of the sampling noise's key.
        chain: Index of the chain among the problem's chains; part of the sampling noise's key.
        prompt_ids: Token ids of the prompt.
        max_new_tokens: L, the most tokens to generate.
        checkpoints: Lengths at which the trace records costs, ascending.
        forced: Token ids to feed in place of drawn ones, ``max_new_tokens`` of them: the chain is these tokens, scored
            through the same cache; nothing ends it early. Empty: tokens are drawn.
    """

    problem: str
    chain: int
    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    checkpoints: tuple[int, ...] = ()
    forced: tuple[int, ...] = ()


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
        logprob: Sum of the log-probabilities (temperature 1) of the generated tokens. Of forced tokens: over all rows
            of the output layer, as transformers scores them.
        trace: Costs at each checkpoint.
        seconds: Wall-clock time between admission and finish.
        greedy: Whether every token was the most probable one; known of forced tokens only.
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


class Engine(ABC):
    """A loaded model with one KV-compression method in force."""

    name: str

    @abstractmethod
    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Chain]:
        """Yield each chain when it finishes; a finished chain leaves the batch and the next request enters."""
