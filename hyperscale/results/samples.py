"""The record of one finished chain, which is a line of ``samples.jsonl``, and the key by which it is known."""

from array import array
from collections.abc import Sequence
from dataclasses import field, replace
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, NonNegativeInt, PlainSerializer, PlainValidator, PositiveInt, TypeAdapter
from pydantic.dataclasses import dataclass

from hyperscale.methods.arm import Arm
from hyperscale.models.thinking import THINKING

# Dataclasses with slots and not BaseModel: a chain at eight cuts takes 6 KB instead of 15 and loads twice as fast.
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Amount = Annotated[float, Field(ge=0)]
LogProbability = Annotated[float, Field(allow_inf_nan=True)]
Finish = Literal["stop", "length"]
Scores = dict[str, float]
"""Name of a scorer to its score."""


def _pack(rows: Any) -> tuple[Sequence[int], ...]:
    """Counts of heads, layer by layer, as machine integers: a large model has hundreds of heads a chain."""
    try:
        packed = tuple(array("I", row) for row in rows)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"must be a list of whole numbers for each layer ({error})") from None
    if len(set(map(len, packed))) > 1:
        raise ValueError("must have as many heads in every layer")
    return packed


Kept = Annotated[
    tuple[Sequence[int], ...],
    PlainValidator(_pack),
    PlainSerializer(lambda rows: [list(row) for row in rows], return_type=list[list[int]]),
]
"""Entries of each KV head, layer by layer."""


class Key(NamedTuple):
    """What makes a chain itself.

    ``L`` counts only for methods whose rule depends on it, which run once per L; for the others it is 0.
    """

    task: str
    problem: str
    method: str
    CR: float
    seed: int
    chain: int
    L: int
    kv_budget: int = 0


def chain_key(arm: Arm, *, task: str, problem: str, seed: int, chain: int, L: int) -> Key:
    """The key of a chain of an arm, finished or still to be generated."""
    return Key(task, problem, arm.method, arm.CR, seed, chain, 0 if arm.length_invariant else L, arm.kv_budget)


@dataclass(config=STRICT, frozen=True, slots=True, kw_only=True)
class Ending:
    """One way in which a chain can end, with its costs up to there, its answer and the verdict.

    Attributes:
        tokens: Generated tokens up to this end, inserted ones included.
        kv_reads: Decode reads up to this end, in entries (mean over layers and KV heads).
        peak_kv: Largest number of live entries up to this end (mean over layers and KV heads).
        logprob: Sum of the log-probabilities (temperature 1) of the drawn tokens; None in files of the first version,
            which kept that of the whole chain alone.
        inserted: Tokens that were not drawn.
        answer: What the text up to this end answers; None for nothing.
        correct: Whether that is right.
        scores: What reward models gave the text, where it has an answer.
    """

    tokens: NonNegativeInt
    kv_reads: Amount
    peak_kv: Amount
    logprob: LogProbability | None
    inserted: NonNegativeInt
    answer: str | None
    correct: bool
    scores: Scores = field(default_factory=dict)


@dataclass(config=STRICT, frozen=True, slots=True, kw_only=True)
class ForcedAnswer(Ending):
    """The answer that was forced upon a chain that had not ended at some L (`engines.base.Branch`).

    Costs, log-probability and inserted tokens are those of the chain's first L tokens and the answer together.

    Attributes:
        text: Its text, which follows that of the chain's first L tokens.
        finish: "stop" if it ended by itself, "length" if it was cut off.
        seconds: Its time in the batch, without the chain's.
    """

    text: str
    finish: Finish
    seconds: Amount


@dataclass(config=STRICT, frozen=True, slots=True, kw_only=True)
class Cut(Ending):
    """A chain cut at L.

    Attributes:
        L: The most new tokens. ``tokens`` is the same, but for the last cut of a chain that ended before its L.
        chars: Characters of the chain's text that stand in front of the cut.
        forced: The answer that was forced there, if one was.
    """

    L: PositiveInt
    chars: NonNegativeInt
    forced: ForcedAnswer | None = None


@dataclass(config=STRICT, frozen=True, slots=True, kw_only=True)
class ScoredOption:
    """One option of a problem that is scored by likelihood: a given text behind its context.

    Attributes:
        text: The option, as the task has it.
        prompt_tokens: Tokens of the context.
        tokens: Tokens that were scored.
        logprob: Sum of their log-probabilities.
        greedy: Whether each was the most probable one.
        kv_reads: Decode reads of these tokens, in entries (mean over layers and KV heads).
        peak_kv: Largest number of live entries (mean over layers and KV heads).
    """

    text: str
    prompt_tokens: NonNegativeInt
    tokens: NonNegativeInt
    logprob: LogProbability
    greedy: bool
    kv_reads: Amount
    peak_kv: Amount


@dataclass(config=STRICT, frozen=True, slots=True, kw_only=True)
class Sample:
    """One finished chain, or a problem that was scored by likelihood.

    Of such a problem tokens and reads are the sums over its options, the peak is the largest of any option, as each has
    a cache of its own.

    Attributes:
        model: The run's model.
        method: The method's name.
        CR: See `Arm`.
        length_invariant: See `Arm`.
        params: The method's parameters.
        engine: Name of the engine.
        dtype: Type of the weights; None in the oldest files.
        kv_dtype: Type of the cache; None in the oldest files.
        task: The task's name.
        task_version: Its version.
        problem: The problem's id within the task.
        level: The problem's difficulty, if the task has levels.
        prompt_hash: Hash of the prompt as the model read it; in older files of the user message alone.
        message_hash: Hash of the user message; None in older files.
        seed: Seed of the sampling noise.
        chain: Index of the chain among the problem's.
        L: The most new tokens that it was allowed.
        prompt_tokens: Tokens of the prompt.
        finish: "stop" if it ended by itself, "length" if L cut it off.
        seconds: Its time in the batch, without forced answers.
        kv_entry_bytes: Bytes of one (key, value) pair, summed over layers and KV heads.
        text: The whole text, in which questions of gated tasks are blacked out.
        cuts: The chain cut at every L that was recorded, ascending; the last is the whole chain.
        forces_answers: Whether the run forces an answer wherever L cuts a chain off.
        opened: The mark of the thinking that the prompt opened; empty if it opened none. Older files do not say: their
            chains have to close one.
        marks: Opening and closing of a thinking, if the model has marks of its own (`models.thinking`).
        kv_budget: See `Arm`.
        kept: (layers, KV heads), entries that each head held when the chain ended (`engines.base.Chain`); empty where
            the engine did not tell.
        options: What was scored, if the problem is one of likelihood; empty for a generated chain.
        prefill_kv: Live entries right after prefill (mean over layers and KV heads), which the method left of the
            prompt; of the option that holds most where there are options. None in older files.
        prefill_reads: Entries that the prompt's queries attended to, likewise, over all options. None in older files,
            and where the engine cannot tell.
    """

    model: str
    method: str
    CR: Amount
    length_invariant: bool
    params: dict[str, Any]
    engine: str
    dtype: str | None
    kv_dtype: str | None
    task: str
    task_version: str
    problem: str
    level: int | None
    prompt_hash: str
    seed: NonNegativeInt
    chain: NonNegativeInt
    L: PositiveInt
    prompt_tokens: NonNegativeInt
    finish: Finish
    seconds: Amount
    kv_entry_bytes: NonNegativeInt
    text: str
    cuts: Annotated[tuple[Cut, ...], Field(min_length=1)]
    forces_answers: bool = False
    message_hash: str | None = None
    opened: str = THINKING
    marks: tuple[str, str] | None = None
    kv_budget: NonNegativeInt = 0
    kept: Kept = ()
    options: tuple[ScoredOption, ...] = ()
    prefill_kv: Amount | None = None
    prefill_reads: Amount | None = None

    def __post_init__(self) -> None:
        # Called by pydantic after the fields are checked; it turns the ValueError into one of its own.
        lengths = [cut.L for cut in self.cuts]
        if lengths != sorted(set(lengths)) or lengths[-1] != self.L:
            raise ValueError(f"has cuts at {lengths}, which must ascend to the chain's own L, {self.L}")
        tokens = [cut.tokens for cut in self.cuts]
        if tokens != sorted(tokens) or any(cut.tokens > cut.L for cut in self.cuts):
            raise ValueError(f"has cuts of {tokens} tokens at {lengths}: they must ascend, none beyond its L")

    @property
    def arm(self) -> Arm:
        """The method at its compression."""
        return Arm(self.method, self.CR, self.length_invariant, kv_budget=self.kv_budget)

    @property
    def key(self) -> Key:
        """What makes this chain itself."""
        return chain_key(self.arm, task=self.task, problem=self.problem, seed=self.seed, chain=self.chain, L=self.L)

    @property
    def question_hash(self) -> str:
        """Hash of the user message, which is the same whatever a template puts around it."""
        return self.message_hash or self.prompt_hash

    @property
    def whole(self) -> Cut:
        """The chain at its own L."""
        return self.cuts[-1]

    @property
    def tokens(self) -> int:
        """Generated tokens of the whole chain."""
        return self.whole.tokens

    @property
    def sequences(self) -> list[tuple[int, int]]:
        """(Prompt tokens, tokens) of the chain; of each option of a problem that was scored by likelihood."""
        options = [(option.prompt_tokens, option.tokens) for option in self.options]
        return options or [(self.prompt_tokens, self.tokens)]

    @property
    def forced_answers(self) -> list[ForcedAnswer]:
        """All forced answers, by ascending L."""
        return [cut.forced for cut in self.cuts if cut.forced is not None]

    def cut_at(self, L: int) -> Cut | None:
        """The recorded cut at some L up to the chain's own; None if it was not recorded there."""
        # A chain that ended before L is whole there, although its last cut is recorded at its own L.
        if self.tokens <= L:
            return self.whole
        return next((cut for cut in self.cuts if cut.L == L), None)

    def with_maximum(self, L: int) -> Self:
        """The same chain as a run with maximum L would have stored it: one that ended by itself within L tokens."""
        assert self.L == L or (self.finish == "stop" and self.tokens <= L), "L would have cut this chain off"
        # Only the last cut says the chain's own L; the others lie below its length, and stay.
        return replace(self, L=L, cuts=(*self.cuts[:-1], replace(self.whole, L=L)))

    def without_texts(self) -> Self:
        """All but the texts and counts of single heads, which points do not need and which take most of the memory."""
        cuts = tuple(
            cut if cut.forced is None else replace(cut, forced=replace(cut.forced, text="")) for cut in self.cuts
        )
        options = tuple(replace(option, text="") for option in self.options)
        return replace(self, text="", cuts=cuts, kept=(), options=options)


ADAPTER = TypeAdapter(Sample)
"""Reads and writes a `Sample` as JSON."""
