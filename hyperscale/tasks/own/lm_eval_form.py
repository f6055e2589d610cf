"""Says what may stand in a user's task file that has lm-eval's form, and what is wrong with one.

`lm_eval_task` makes the task.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from hyperscale.scoring.graders.likelihood import GREEDY, METRICS
from hyperscale.scoring.graders.lm_eval_match import LmEvalGrader
from hyperscale.tasks.own.schema import GRADERS
from hyperscale.tasks.own.sources import check_name
from hyperscale.tasks.task import Strategy
from hyperscale.utils.user_functions import FORM
from hyperscale.utils.validation import all_faults
from hyperscale.utils.yaml_files import YamlFile

#: Keys of lm-eval's that have no place here, each with what to do instead.
REFUSED = {
    "custom_dataset": "write the rows to a file, with dataset_path json and dataset_kwargs.data_files",
    "process_results": "grade with a function of your own, `grader: module:function`",
    "doc_to_image": "models here read text alone",
    "doc_to_audio": "models here read text alone",
    "use_prompt": "write the prompt as doc_to_text",
    "unsafe_code": "leave it out: `grader: code` runs programs in a sandbox",
    "gen_prefix": "ask for the form of the answer in doc_to_text",
    "group": "a file has one task: name the group's tasks with --task",
    "class": "a task of a class of its own runs under lm-eval alone (docs/tasks.md)",
}
_MOST_TOKENS = 256  # lm-eval's own default of max_gen_toks
_LIKELIHOOD = ("multiple_choice", "loglikelihood")
#: Metrics of likelihood that say nothing about a single problem: they are left out.
_NO_VERDICTS = {"perplexity", "f1", "mcc", "brier_score", "likelihood", "acc_mutual_info", "exact_match"}


class FilterStep(BaseModel):
    """A filter of lm-eval's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    function: Literal["regex", "take_first", "lowercase", "remove_whitespace"]
    regex_pattern: str | None = None
    group_select: int | None = None
    fallback: str | None = None

    @field_validator("regex_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"is no regular expression ({error})") from None
        return pattern

    @property
    def arguments(self) -> dict[str, Any]:
        """The filter's arguments."""
        return self.model_dump(exclude_none=True, exclude={"function"})


class Pipeline(BaseModel):
    """Filters, one after the other, under a name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    filter: tuple[FilterStep, ...]


class Metric(BaseModel):
    """A metric of lm-eval's, with its options."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Literal["exact_match", "acc", "acc_norm", "acc_bytes"]
    aggregation: Literal["mean"] = "mean"
    higher_is_better: Literal[True] = True
    ignore_case: bool = False
    ignore_punctuation: bool = False
    ignore_numbers: bool = False
    regexes_to_ignore: tuple[str, ...] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The metric's own arguments."""
        return self.model_dump(exclude_defaults=True, exclude={"metric", "aggregation", "higher_is_better"})


class Generation(BaseModel):
    """How answers are generated: what ends them, and how long they may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    until: tuple[str, ...] | None = None
    max_gen_toks: int = Field(_MOST_TOKENS, ge=1, le=2**24)
    do_sample: bool = False
    temperature: float = Field(0.0, ge=0)

    @field_validator("until", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return not self.do_sample or self.temperature == 0


class LmEvalFile(BaseModel):
    """The keys of a task file in lm-eval's form, and those of ours that may stand beside them.

    Attributes:
        grader: In place of ``filter_list`` and ``metric_list``: a grader of ours by name, or ``module:function``.
        filter: Which of several pipelines of ``filter_list`` counts; the first by default.
        metric: Which of several metrics of likelihood counts; the first by default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    task_alias: str | None = None
    tag: Any = None
    dataset_path: str
    dataset_name: str | None = None
    dataset_kwargs: dict[str, Any] | None = None
    training_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    fewshot_split: str | None = None
    process_docs: str | None = None
    doc_to_text: str
    doc_to_target: str | int | list[str]
    doc_to_choice: str | list[str] | dict[str, str] | None = None
    description: str | None = None
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    fewshot_config: dict[str, Any] | None = None
    num_fewshot: int | None = Field(None, ge=0)
    output_type: Literal["generate_until", "multiple_choice", "loglikelihood"] = "generate_until"
    generation_kwargs: Generation = Field(default_factory=lambda: Generation.model_validate({}))
    filter_list: tuple[Pipeline, ...] | None = Field(None, min_length=1)
    metric_list: tuple[Metric, ...] | None = Field(None, min_length=1)
    repeats: Literal[1] = 1
    should_decontaminate: bool = False
    doc_to_decontamination_query: str | None = None
    metadata: dict[str, Any] | None = None
    grader: str | None = None
    filter: str | None = None
    metric: Literal["acc", "acc_norm", "acc_bytes"] | None = None
    lengths: tuple[Annotated[int, Field(ge=1, le=2**24)], ...] | None = Field(None, min_length=1)
    base_length: int | None = None
    strategy: Strategy | None = None
    summary: str = ""
    gated: bool = False

    @field_validator("task")
    @classmethod
    def _can_be_named(cls, name: str) -> str:
        if not name or set(name) & set("@:,/ "):
            raise ValueError("must be a name without @, colon, comma, slash or blank")
        return check_name(name)

    @field_validator("doc_to_choice", "doc_to_target", mode="before")
    @classmethod
    def _has_no_truth(cls, value: Any) -> Any:
        if isinstance(value, list) and any(isinstance(entry, bool) for entry in value):
            raise ValueError("has true or false, which YAML makes of yes and no: put them in quotes")
        return value

    @field_validator("output_type", mode="before")
    @classmethod
    def _has_verdicts(cls, kind: Any) -> Any:
        if kind == "loglikelihood_rolling":
            raise ValueError(
                "is the likelihood of whole texts: measure it with `hyperscale loglik` (docs/loglik.md), or run "
                "the file under lm-eval (docs/tasks.md)"
            )
        return kind

    @field_validator("lengths", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("grader")
    @classmethod
    def _exists(cls, name: str | None) -> str | None:
        if name is not None and name not in GRADERS and not FORM.fullmatch(name):
            raise ValueError(f"must be module:function, or one of {', '.join(GRADERS)}")
        return name

    @field_validator("metric_list", mode="before")
    @classmethod
    def _give_verdicts(cls, metrics: Any, info: ValidationInfo) -> Any:
        if info.data.get("output_type") not in _LIKELIHOOD or not isinstance(metrics, list):
            return metrics
        names = [metric.get("metric") for metric in metrics if isinstance(metric, dict)]
        kept = [m for m in metrics if not isinstance(m, dict) or str(m.get("metric")) not in _NO_VERDICTS]
        if not kept:
            raise ValueError(f"has {', '.join(map(str, names))}, and none of acc, acc_norm and acc_bytes: add one")
        return kept

    @field_validator("metric_list")
    @classmethod
    def _is_exact(cls, metrics: tuple[Metric, ...] | None, info: ValidationInfo) -> tuple[Metric, ...] | None:
        if info.data.get("output_type") in _LIKELIHOOD:
            return metrics
        for metric in metrics or ():
            if metric.metric != "exact_match":
                raise ValueError(f"has {metric.metric}, which is for likelihood: generated answers take exact_match")
        if metrics and len(metrics) > 1:
            raise ValueError("has several metrics, and a verdict is one: leave one")
        return metrics

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.test_split is None and self.validation_split is None:
            raise ValueError("has no test_split and no validation_split: name the split whose rows are the problems")
        if self.is_likelihood:
            self._check_likelihood()
        elif self.metric is not None:
            raise ValueError("has metric, which chooses one of a task that is scored by likelihood: leave it out")
        if self.grader and (self.filter_list or self.metric_list):
            raise ValueError("has grader beside filter_list or metric_list: leave one of them out")
        names = [pipeline.name for pipeline in self.filter_list or ()]
        if self.filter is not None and self.filter not in names:
            raise ValueError(f"has filter {self.filter!r}, which is none of filter_list ({', '.join(names) or 'none'})")
        if self.lengths and list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError("has lengths that must be ascending, each length once")
        if self.base_length is not None and self.base_length not in self.all_lengths:
            raise ValueError(f"has base_length {self.base_length}, which is not one of its lengths {self.all_lengths}")
        return self

    def _check_likelihood(self) -> None:
        for name in ("grader", "filter", "lengths", "base_length", "strategy"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"has {name}, which is for generated answers: a task that is scored by likelihood does without"
                )
        if self.gated:
            raise ValueError("has gated, which would black out the options that are scored: leave it out")
        if self.output_type == "multiple_choice" and self.doc_to_choice is None:
            raise ValueError("has no doc_to_choice: a multiple choice needs its options")
        if self.metric is not None and self.output_type == "loglikelihood":
            raise ValueError("has metric, which is for a multiple choice: leave it out")
        if self.metric is not None and self.metric_list and self.metric not in [m.metric for m in self.metric_list]:
            raise ValueError(f"has metric {self.metric!r}, which is none of its metric_list")

    @property
    def is_likelihood(self) -> bool:
        """Whether given texts are scored, and nothing is generated."""
        return self.output_type in _LIKELIHOOD

    @property
    def scored_by(self) -> str:
        """What a problem of likelihood is graded by, as `LikelihoodGrader` takes it."""
        if self.output_type == "loglikelihood":
            return GREEDY
        return self.metric or (self.metric_list[0].metric if self.metric_list else METRICS[0])

    @property
    def all_lengths(self) -> tuple[int, ...]:
        """Values of L: those of ``lengths``, else ``max_gen_toks``."""
        return self.lengths or (self.generation_kwargs.max_gen_toks,)

    @property
    def pipeline(self) -> tuple[FilterStep, ...]:
        """The filters that count."""
        for pipeline in self.filter_list or ():
            if self.filter in (None, pipeline.name):
                return pipeline.filter
        return (FilterStep(function="take_first"),)

    def new_grader(self) -> LmEvalGrader:
        """lm-eval's grader of the task."""
        filters = [(step.function, step.arguments) for step in self.pipeline]
        return LmEvalGrader(filters, self.metric_list[0].options if self.metric_list else {})


def find_faults(values: Mapping[str, Any], file: YamlFile) -> LmEvalFile | list[str]:
    """The keys of a task's file, or all that is wrong with them, each with file, line and key."""
    faults = [
        f"{file.place((key,))}: {key} has no place here: {REFUSED[key]}"
        for key in values
        if key in REFUSED and values[key] is not None and values[key] is not False
    ]
    known = {key: value for key, value in values.items() if key not in REFUSED}
    try:
        result = LmEvalFile.model_validate(known)
    except ValidationError as error:
        return faults + list(_describe(error, file))
    return faults or result


def _describe(error: ValidationError, file: YamlFile) -> Iterator[str]:
    for location, fault in all_faults(error, LmEvalFile):
        keys = tuple(key for key in location if key not in ("str", "int", "list[str]", "dict[str,str]"))
        if keys[:1] == ("filter_list",) and keys[-1] == "function":
            fault += ": take another filter, or grade with a function of your own, `grader: module:function`"
        if keys[:1] == ("metric_list",) and keys[-1] in ("metric", "aggregation"):
            fault += ": grade with a function of your own, `grader: module:function`"
        if keys[:1] == ("generation_kwargs",) and "is unknown" in fault:
            fault = "is a setting of the run: give it with the run's options (docs/settings.md)"
        if keys[:1] == ("repeats",):
            fault += ": W chains of a problem take its place"
        yield f"{file.place(keys)}: {'.'.join(map(str, keys))}{' ' if keys else ''}{fault}"
