"""Declares the settings of a retrofit once: the command's options, the recipe's parser and the docs follow.

`TrainingSettings` are those of the training itself. `Recipe` adds what only the built-in model's recipe changes, and is
what the trainer reads; `RetrofitSettings` adds model, data and memory, and is what ``hyperscale retrofit`` takes.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hyperscale.errors import RetrofitError
from hyperscale.retrofit.recipes import NAMES, recipe_values
from hyperscale.retrofit.sources.settings import OWN, Sources
from hyperscale.utils.settings import setting, settings_of
from hyperscale.utils.validation import first_fault

if TYPE_CHECKING:
    from hyperscale.methods.core.dmc_merge import MergeConfig
    from hyperscale.methods.core.dms_gate import GateConfig

#: Learning rates of arXiv 2506.05345: up to 1.5B weights, and above; and the number of weights that parts them.
LR_SMALL, LR_LARGE, SMALL = 1e-5, 3e-5, 2e9
#: Most GPUs that can be asked for.
MOST_GPUS = 1024


class TrainingSettings(BaseModel):
    """Settings of the training, with the paper's values where it states them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: Literal["all", "lora", "gates"] = setting(
        "all",
        "Which weights train.",
        details="All; or the gates' projections with low-rank updates of the attention's, or without: then the model's "
        "own weights stay as they are, and teach.",
    )
    lora_rank: int = setting(
        16,
        "Rank of the updates of --train lora.",
        ge=1,
        le=4096,
        details="Each projection of queries, keys, values and outputs has one, merged when a checkpoint is written.",
    )
    lora_alpha: float = setting(
        32.0, "Scale of these updates, divided by their rank.", gt=0, le=10**6, allow_inf_nan=False
    )
    crs: tuple[Annotated[float, Field(gt=1, le=1024, allow_inf_nan=False)], ...] = setting(
        (8.0,), "Compression ratios to leave a checkpoint at, ascending, e.g. 2,4,8.", option="cr", min_length=1
    )
    steps_per_unit: float = setting(
        100.0, "Steps in which the ratio rises by one.", gt=0, le=10**9, allow_inf_nan=False
    )
    hard_steps: tuple[Annotated[int, Field(ge=0)], ...] = setting(
        (150,),
        "Steps with inference's gates that finish each checkpoint: one number for all ratios, or one for each.",
        min_length=1,
        details="Only the weights train in them. 0 is the paper's recipe. See `finish`.",
    )
    finish: Literal["auto", "hard", "soft"] = setting(
        "auto",
        "Gates of these steps.",
        details="hard: inference's. soft: training's, with noise, at the full ratio; then all that trains goes on, at "
        "a learning rate that falls to 0, in `adapters` too. auto: hard, but soft where neurons of attention decide.",
    )
    window: int = setting(256, "Tokens after which an eviction takes effect.", ge=1, le=2**24)
    gate: Literal["separate", "borrowed"] = setting(
        "separate", "Where gates read their logits.", details="A projection of their own, or a neuron of the query."
    )
    per: Literal["head", "layer"] = setting(
        "head", "What has a decision of its own.", details="Each KV head, or all KV heads of a layer together."
    )
    format: Literal["nvidia", "fastdms"] = setting(
        "nvidia",
        "Code that the checkpoints are written for.",
        details="It says which token decides and what attention sees of a borrowed neuron; fastdms needs "
        "`gate: borrowed` and `per: head`.",
    )
    fade_steps: int = setting(
        2000,
        "Steps before all others in which borrowed neurons are faded out of attention.",
        ge=0,
        details="Their factor falls as 1 − t / n_t. Separate gates need none.",
    )
    accumulate: int = setting(16, "Batches of an optimiser step.", ge=1, le=10**6, details="Their losses are averaged.")
    gate_lr: float = setting(
        3e-5,
        "Learning rate of the gates' projections.",
        gt=0,
        allow_inf_nan=False,
        details="3e-4 by --recipe lora and adapters. Borrowed neurons train with the weights that they are part of.",
    )
    ledger: bool = setting(
        False,
        "Count the ratio in reads and held entries, as runs do, not in evicted tokens.",
        details="The window counts too. The paper counts evicted tokens.",
    )
    seed: int = setting(0, "Seed of the data's order and of the gates' noise.", ge=0, lt=2**63)

    @field_validator("crs")
    @classmethod
    def _ascend(cls, crs: tuple[float, ...]) -> tuple[float, ...]:
        if list(crs) != sorted(set(crs)):
            raise ValueError("must be in ascending order, each ratio once: one training passes them all on its way")
        return crs

    @model_validator(mode="after")
    def _finish_each_ratio(self) -> Self:
        if len(self.hard_steps) not in (1, len(self.crs)):
            raise ValueError(f"{len(self.hard_steps)} numbers of hard steps for {len(self.crs)} ratios")
        return self

    @model_validator(mode="after")
    def _fit_the_format(self) -> Self:
        if self.format == "fastdms" and (self.gate, self.per) != ("borrowed", "head"):
            raise ValueError("--format fastdms needs --gate borrowed and --per head, which are all that FastDMS knows")
        return self

    @model_validator(mode="after")
    def _train_something(self) -> Self:
        if self.is_frozen and self.gate != "separate":
            raise ValueError(
                f"--train {self.train} needs --gate separate: a borrowed neuron is part of the model's weights"
            )
        if self.train == "gates" and any(self.hard_steps) and self.finish != "soft":
            raise ValueError(
                "--train gates has nothing that trains in steps with inference's gates: pass --hard-steps 0 or "
                "--finish soft"
            )
        return self

    @property
    def is_frozen(self) -> bool:
        """Whether the model's own weights stay as they are, and are the teacher's too."""
        return self.train != "all"

    @property
    def update_rank(self) -> int:
        """Rank of the low-rank updates that train; 0 if there are none."""
        return self.lora_rank if self.train == "lora" else 0

    def changed(self, **changes: Any) -> Self:
        """The same with other values, which are checked.

        Raises:
            ValidationError: A value makes no sense.
        """
        return type(self).model_validate({**self.model_dump(), **changes})


class Recipe(TrainingSettings):
    """What the trainer reads: the settings of the training, and what only the built-in model's recipe changes."""

    method: Literal["dms", "dmc"] = setting("dms", "What to retrofit.")
    eviction: Literal["delayed", "immediate"] = setting(
        "delayed",
        "When a token is decided on: as soon as it is written, or as it leaves the window.",
        details="Either way it is gone once the window has passed. The paper delays; the torch engine alone runs the "
        "other.",
    )
    lr: float = setting(3e-4, "Learning rate of the weights.", gt=0)
    warmup: int = setting(20, "Steps over which the learning rate rises.", ge=1)
    clip: float = setting(1.0, "Norm that gradients are clipped to.", gt=0)
    reach: float = setting(1.0, "Share of the nominal ratio that is aimed at.", gt=0, le=1, details="1 is the paper's.")
    groups: int = setting(
        1, "Number of kinds of data, each with a compression target of its own.", ge=1, details="1 is the paper's loss."
    )
    symmetric: bool = setting(False, "Distil in both directions.", details="The paper: KL(student || teacher) alone.")

    @model_validator(mode="after")
    def _decide_in_time(self) -> Self:
        if self.eviction == "immediate" and (self.method, self.format) != ("dms", "nvidia"):
            raise ValueError("eviction: immediate needs method: dms and format: nvidia")
        return self

    @property
    def separate(self) -> bool:
        """Whether gates have a projection of their own; the decisions of DMC never have."""
        return self.method == "dms" and self.gate == "separate"

    @property
    def fading(self) -> int:
        """Steps n_t in which borrowed neurons are faded out; 0 if there are none."""
        return 0 if self.separate else self.fade_steps

    @property
    def delay(self) -> int:
        """Younger tokens that still see an entry whatever its verdict: w, and 0 under DMC.

        Under DMC the newest token sees its mean whatever comes next, and no later one does once the next is merged
        into it.
        """
        return 0 if self.method == "dmc" else self.window

    def gates(self) -> "GateConfig | MergeConfig":
        """Settings of untrained gates."""
        from hyperscale.methods.core.dmc_merge import MergeConfig
        from hyperscale.methods.core.dms_gate import GateConfig

        if self.method == "dmc":
            # The reference code has no scale. But a norm of queries and keys divides what a neuron learns (by 10 in the
            # built-in model) and bounds what it can be.
            return MergeConfig(alpha_scale=GateConfig.alpha_scale, cr=self.crs[-1])
        gate = GateConfig(window=self.window, cr=self.crs[-1], separate=self.separate, per=self.per)
        gate = gate.in_format(self.format)
        return gate.immediate if self.eviction == "immediate" else gate

    @property
    def finish_mode(self) -> Literal["noisy", "hard"]:
        """Mode of the gates in the steps that finish a checkpoint."""
        if self.finish != "auto":
            return "hard" if self.finish == "hard" else "noisy"
        # Neurons cannot be frozen as projections of their own are, and steps without noise ruin them: what they decide
        # changes with every step, and the loss that trains the weights does not see it.
        return "hard" if self.separate else "noisy"

    def hard_steps_at(self, cr: float) -> int:
        """Steps of the hard phase that finishes the checkpoint at a ratio."""
        # One number stands for all ratios.
        return self.hard_steps[0 if len(self.hard_steps) == 1 else self.crs.index(cr)]

    def steps_until(self, cr: float) -> int:
        """Steps after which the schedule reaches a ratio, those that fade borrowed neurons out included."""
        return self.fading + round((cr - 1.0) * self.steps_per_unit)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training, the hard phase of each checkpoint included."""
        return self.steps_until(self.crs[-1]) + sum(map(self.hard_steps_at, self.crs))


class RetrofitSettings(TrainingSettings, Sources):
    """What ``hyperscale retrofit`` takes; the fields of `Sources` come first."""

    recipe_name: Literal["paper", "lora", "adapters"] | None = setting(
        None,
        "Values of the settings that are not given.",
        option="recipe",
        unset="the first of paper, lora and adapters whose memory fits",
        details="paper trains all weights; lora the gates and low-rank updates of the attention's projections; "
        "adapters the gates alone. The last two take a fifth of the memory or less from 1.5B weights on.",
    )
    packing: Literal["apart", "joined"] = setting(
        "apart",
        "Whether the documents of a row see one another.",
        details="joined makes each row one document, so that short ones teach evictions beyond several windows too.",
    )
    rows: int = setting(1, "Rows of a batch, held in memory at once.", ge=1, le=65536)
    length: int = setting(
        0, "Tokens of a row.", ge=0, le=2**24, unset="8192, or the model's context if that is shorter"
    )
    lr: float | None = setting(
        None,
        "Learning rate of the weights, or of their low-rank updates.",
        unset="1e-5 below 2B weights, else 3e-5; 2e-4 by --recipe lora",
        gt=0,
        allow_inf_nan=False,
    )
    weights: Literal["float32", "bfloat16"] = setting("float32", "Type of the trained weights.")
    activations: Literal["auto", "recomputed", "kept"] = setting(
        "auto",
        "What is held of a forward pass for the backward pass.",
        details="recomputed: each layer's input, from which the rest is computed again. kept: all of it, which takes "
        "many times the memory and saves a pass. auto: kept on a GPU with room to spare, else recomputed; a training "
        "that goes on stays with what it began with.",
    )
    cuda_graphs: bool = setting(
        True,
        "Record the steps of a small model as CUDA graphs and replay them.",
        details="Of models up to 1B weights on one GPU, where launching kernels takes longer than running "
        "them. What is learned does not depend on it.",
    )
    gpus: int = setting(
        1,
        "GPUs of this machine that share the training; with --device cpu, processes.",
        ge=1,
        le=MOST_GPUS,
        details="Weights, gradients and moments are sharded among them; what is learned does not depend on it.",
    )
    device: str | None = setting(None, "Where to train: cpu, cuda or cuda:N.", unset="cuda if there is one")
    save_minutes: float = setting(
        10.0,
        "Minutes between two states of the training on the disk, from which the same command goes on.",
        ge=0,
        le=10**6,
        allow_inf_nan=False,
        details="SIGTERM, SIGINT and SIGHUP leave one too. 0 keeps one after every step.",
    )

    @model_validator(mode="after")
    def _finish_in_steps(self) -> Self:
        if self.finish != "auto" and not any(self.hard_steps):
            raise ValueError(f"--finish {self.finish} has no steps: pass --hard-steps 150")
        return self

    @classmethod
    def from_options(cls, values: Mapping[str, Any]) -> Self:
        """The settings that options of the command line make.

        Args:
            values: Values by field; left out, a field has its default.

        Raises:
            RetrofitError: A value makes no sense; the message names the option.
        """
        try:
            name = values.get("recipe_name")
            return cls.model_validate({**(recipe_values(name) if name in NAMES else {}), **values})
        except ValidationError as error:
            raise RetrofitError(describe_fault(error, cls)) from None

    def with_recipe(self, name: str) -> Self:
        """The same with a recipe's values in the settings that were not given.

        Raises:
            RetrofitError: They do not go with those that were.
        """
        given = {field: getattr(self, field) for field in self.model_fields_set}
        return self.from_options({**given, "recipe_name": name})

    def list_unused(self) -> list[str]:
        """Options that were given and change nothing, a line for each that says what would."""
        rate = "--recipe paper or lora, and --gate-lr with adapters" if self.train == "gates" else ""
        rank = "--recipe lora" if self.train != "lora" else ""
        own = f"--data {OWN}" if self.data != OWN else ""
        column = "--data with a file or hub:NAME" if self.data == OWN else ""
        needed = {"lr": rate, "lora_rank": rank, "lora_alpha": rank, "column": column}
        needed |= dict.fromkeys(("own_tokens", "own_temperature", "own_top_p"), own)
        needed["fade_steps"] = "--gate borrowed" if self.gate == "separate" else ""
        options = {each.field: each.option for each in settings_of(type(self))}
        return [
            f"{options[field]} changes nothing here: it goes with {remedy}"
            for field, remedy in needed.items()
            if remedy and field in self.model_fields_set
        ]

    def recipe(self, parameters: int) -> Recipe:
        """What the trainer reads.

        Args:
            parameters: Number of the model's weights, which decides the learning rate if none is set.
        """
        training = {name: getattr(self, name) for name in TrainingSettings.model_fields}
        return Recipe(
            **training,
            lr=self.lr or (LR_SMALL if parameters < SMALL else LR_LARGE),
            # A short hard phase would end before the learning rate of a longer warm-up has risen. Gates that train
            # alone begin at 0, and were measured without a warm-up.
            warmup=min(20, *filter(None, self.hard_steps), 20) if self.train != "gates" or any(self.hard_steps) else 1,
        )


def check_shares(count: int, recipe: Recipe) -> None:
    """Refuse what several processes cannot share.

    Raises:
        RetrofitError: A setting does not allow it.
    """
    if recipe.accumulate % count:
        raise RetrofitError(
            f"--accumulate {recipe.accumulate} batches a step do not divide among {count} GPUs: pass a multiple"
        )
    if count > 1 and not recipe.separate:
        raise RetrofitError(
            "several GPUs train gates with a projection of their own: pass --gate separate, or --gpus 1"
        )


def describe_fault(error: ValidationError, schema: type[BaseModel]) -> str:
    """A fault in the words of the command line: ``--rows must be at least 1, got 0``."""
    location, fault = first_fault(error, schema)
    if not location:
        return fault
    options = {option.field: option.option for option in settings_of(schema)}
    return f"{options[str(location[0])]} {fault}"
