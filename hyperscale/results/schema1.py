"""Reads what versions before schema 2 wrote: a chain's costs as parallel lists, its forced answers as ``branches``."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hyperscale.results.samples import Amount, Cut, Finish, ForcedAnswer, LogProbability, Sample, Scores

SCHEMA = 1
_STRICT = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)
_SAME = (  # fields of a line that are a sample's under the same name
    *("model", "method", "CR", "length_invariant", "params", "engine", "dtype", "kv_dtype", "task", "task_version"),
    *("problem", "level", "prompt_hash", "seed", "chain", "prompt_tokens", "finish", "seconds", "kv_entry_bytes"),
    "text",
)
Count = Annotated[int, Field(ge=0)]


class ForcedBranch(BaseModel):
    """A forced answer; ``at`` is the L that it belongs to."""

    model_config = _STRICT

    at: Count
    tokens: Count
    finish: Finish
    logprob: LogProbability
    inserted: Count
    seconds: Amount
    kv_reads: Amount
    peak_kv: Amount
    text: str
    answer: str | None = None
    correct: bool
    scores: dict[str, float | None] = {}


class Line(BaseModel):
    """A line of ``samples.jsonl``.

    ``run`` and ``vote``, which belong to the folder, are left unread. The first versions wrote no ``branches``,
    ``logprobs``, ``inserted``, ``dtype``, ``kv_dtype`` and ``length_invariant``.
    """

    model_config = _STRICT

    model: str
    method: str
    CR: Amount
    length_invariant: bool = True
    params: dict[str, Any] = {}
    engine: str
    dtype: str | None = None
    kv_dtype: str | None = None
    task: str
    task_version: str
    problem: str
    level: int | None = None
    prompt_hash: str
    seed: Count
    chain: Count
    max_new_tokens: Annotated[int, Field(ge=1)]
    prompt_tokens: Count
    tokens: Count
    finish: Finish
    logprob: LogProbability | None = None
    seconds: Amount
    kv_entry_bytes: Count
    text: str
    lengths: Annotated[list[Count], Field(min_length=1)]
    kv_reads: list[Amount]
    peak_kv: list[Amount]
    chars: list[Count]
    answers: list[str | None]
    correct: list[bool]
    logprobs: list[LogProbability] | None = None
    inserted: list[Count] | None = None
    scores: dict[str, list[float | None]] = {}
    branches: list[ForcedBranch] | None = None

    @model_validator(mode="after")
    def _parallel(self) -> "Line":
        lists: dict[str, Any] = {name: getattr(self, name) for name in ("kv_reads", "peak_kv", "chars", "answers")}
        lists |= {"correct": self.correct, "logprobs": self.logprobs, "inserted": self.inserted, **self.scores}
        for name, values in lists.items():
            if values is not None and len(values) != len(self.lengths):
                raise ValueError(f"has {len(values)} entries in {name} for {len(self.lengths)} lengths")
        for branch in self.branches or ():
            if branch.at not in self.lengths:
                raise ValueError(f"has a branch at {branch.at}, which is none of its lengths")
        return self


def convert(line: dict[str, Any]) -> Sample:
    """The sample of a line of schema 1.

    Raises:
        pydantic.ValidationError: The line is corrupt.
    """
    old = Line.model_validate(line)
    # The last length is the chain's own: where it ended by itself, its cut stands for every L up to the maximum.
    forced = {branch.at: _forced(branch) for branch in old.branches or ()}
    last = len(old.lengths) - 1
    cuts = tuple(
        Cut(
            L=old.max_new_tokens if i == last else length,
            tokens=length,
            kv_reads=old.kv_reads[i],
            peak_kv=old.peak_kv[i],
            chars=old.chars[i],
            # The first versions had the log-probability of the whole chain alone, and no way to insert tokens.
            logprob=old.logprobs[i] if old.logprobs is not None else old.logprob if i == last else None,
            inserted=old.inserted[i] if old.inserted is not None else 0,
            answer=old.answers[i],
            correct=old.correct[i],
            scores=_scores({name: values[i] for name, values in old.scores.items()}),
            forced=forced.get(length),
        )
        for i, length in enumerate(old.lengths)
    )
    return Sample(
        **{name: getattr(old, name) for name in _SAME},
        L=old.max_new_tokens,
        cuts=cuts,
        # A run that forces answers wrote the field for every chain, if only as an empty list.
        forces_answers=old.branches is not None,
    )


def _forced(branch: ForcedBranch) -> ForcedAnswer:
    fields = branch.model_dump(exclude={"at", "scores"})
    return ForcedAnswer(**fields, scores=_scores(branch.scores))


def _scores(scores: dict[str, float | None]) -> Scores:
    """The scores of a text, without the scorers that were not asked because it has no answer."""
    return {name: score for name, score in scores.items() if score is not None}
