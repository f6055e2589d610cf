"""The plugin's settings in vLLM's ``additional_config``: the method, its parameters, how cautious admission is."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

from hyperscale.engines.vllm.method_names import HOSTED, OPTION_VALUES
from hyperscale.errors import EngineError, MethodError
from hyperscale.kv.formats import AUTO
from hyperscale.methods.core.dms_config import GateConfig, has_gates
from hyperscale.methods.core.row_budget import Count, budget_floor, row_budget

if TYPE_CHECKING:
    from hyperscale.methods.core.base import Method

KEY = "hyperscale"
"""Where the options stand in vLLM's ``additional_config``."""

ARMS = "arms"
"""Where, among them, the options of all methods stand that the engine runs in turn (`hyperscale.engines.vllm.arms`)."""

PAGE_TOKENS = 32
"""N, unless the user chooses: coarser superblocks cost short requests more than they save the scheduler."""

LIST_TYPES = (AUTO, "fp8")
"""What lists can keep keys and values in; the kernels know no other."""

DECODES = ("auto", "fa3", "triton")

SAMPLING_ARGS = "hyperscale_draw"
"""Where a request's settings for `hyperscale.engines.vllm.harness.logits_processor` stand in
``SamplingParams.extra_args``."""

_FORMER_NAMES = {"rule": "method", "share": "budget_rule"}
"""Options by the names that they had first, which configurations may still use."""

_PARAMETERS = {"recent": "recent", "budget_rule": "rule"}
"""Options of window and random, by the names that their own parameters have."""

_KINDS = {
    tuple: "a mapping",
    frozenset: "a list of whole numbers",
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def with_own_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the method random with what they say of its budget as its own parameters too; others as they are."""
    names = {**_PARAMETERS, "share": "rule"}
    if values.get("method", values.get("rule")) != "random" or values.get("parameters"):
        return dict(values)
    own: dict[str, Any] = {"recent": Options.recent, "rule": Options.budget_rule, "pin_prompt": True}
    own |= {names[name]: value for name, value in values.items() if name in names}
    own |= {"budget": values["kv_budget"]} if values.get("kv_budget") else {}
    return {**values, "parameters": own}


@dataclass(frozen=True)
class Options:
    """Settings of one vLLM engine, as ``--additional-config '{"hyperscale": {...}}'`` gives them.

    Attributes:
        method: Which entries are evicted: "none" keeps all, "hashed" is DMS with verdicts by a hash of position, layer
            and head, 1 / CR of which keep an entry: for measurements of speed, on any checkpoint. The others are the
            methods of these names.
        cr: Nominal compression ratio; 0 for the checkpoint's own (``dms_cr``), which is 1 where it has none.
        window: w of DMS, in tokens; -1 for the checkpoint's own.
        decision_offset: d of DMS: hidden state i + d decides on token i; the checkpoint's own if it is not given.
        recent: Of window and random, as in `hyperscale.methods.core.budgeted`.
        budget_rule: How their budget grows, likewise.
        kv_budget: The budget in tokens of them and of methods with a state, instead of by cr; 0 for none.
        parameters: Parameters of the method by their own names, without cr, as (name, value) pairs. Window and random
            run by their own state if there are any.
        slack: Added to 1 / CR where admission guesses which part of a request's tokens stays live.
        reserve_output_fraction: Part of ``max_tokens`` that admission expects a request to generate. Less admits more
            requests at once; where it is too little, vLLM preempts.
        vocabulary: Rows of the output layer up to the last token; those after them are never drawn. 0 for all.
        unused: Rows below these that are no tokens, which are never drawn either.
        decode: On CUDA, what attends for decode steps: FlashAttention 3, the plugin's own kernel, or the former where
            it is there.
        full_graphs: On CUDA, whether whole decode steps are CUDA graphs, not only what lies between attention layers.
            Where data parallelism forbids them they are left out, unless they were asked for
            (`hyperscale.engines.vllm.plugin.configure`).
        kv_dtype: What the lists keep keys and values in: "auto" for the model's own type, or "fp8", each key and value
            with a scale of its own (`hyperscale.kv.quantization`). ``--kv-cache-dtype fp8`` of vLLM sets it.
    """

    method: str = "dms"
    cr: float = 0.0
    window: int = -1
    decision_offset: int = 1
    recent: int = 16
    budget_rule: Literal["proportional", "fixed"] = "proportional"
    kv_budget: int = 0
    parameters: tuple[tuple[str, Any], ...] = ()
    slack: float = 0.05
    reserve_output_fraction: float = 1.0
    vocabulary: int = 0
    unused: frozenset[int] = frozenset()
    decode: Literal["auto", "fa3", "triton"] = "auto"
    full_graphs: bool = True
    kv_dtype: str = AUTO

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            # JSON knows no difference between 8 and 8.0; to Python, true is an int.
            if not isinstance(value, (int, float) if kind is float else kind) or (
                isinstance(value, bool) and kind is not bool
            ):
                raise EngineError(f"additional_config.{KEY}.{field.name} must be {_KINDS[kind]}, not {value!r}")
        budget_rules = ("proportional", "fixed")
        checks = {
            f"method must be one of {', '.join(OPTION_VALUES)}, not {self.method!r}": self.method in OPTION_VALUES,
            f"kv_dtype must be one of {', '.join(LIST_TYPES)}, not {self.kv_dtype!r}": self.kv_dtype in LIST_TYPES,
            f"decode must be one of {', '.join(DECODES)}, not {self.decode!r}": self.decode in DECODES,
            f"budget_rule must be 'proportional' or 'fixed', not {self.budget_rule!r}": (
                self.budget_rule in budget_rules
            ),
            f"cr must be at least 1, or 0 for the checkpoint's, not {self.cr}": self.cr == 0 or self.cr >= 1,
            f"window must be at least 0, or -1 for the checkpoint's, not {self.window}": self.window >= -1,
            f"decision_offset must be 0 or 1, not {self.decision_offset}": self.decision_offset in (0, 1),
            f"recent must be at least 1, not {self.recent}": self.recent >= 1,
            f"kv_budget must be at least 0, not {self.kv_budget}": self.kv_budget >= 0,
            f"vocabulary must be at least 0, not {self.vocabulary}": self.vocabulary >= 0,
            "unused must be at least 0 in every row": min(self.unused, default=0) >= 0,
            f"slack must be at least 0, not {self.slack}": self.slack >= 0,
            f"reserve_output_fraction must lie in [0, 1], not {self.reserve_output_fraction}": (
                0 <= self.reserve_output_fraction <= 1
            ),
        }
        for message, holds in checks.items():
            if not holds:
                raise EngineError(f"additional_config.{KEY}.{message}")

    @classmethod
    def read(cls, additional: Any, model_config: Any) -> "Options":
        """The options of an engine, with what the checkpoint says filled in.

        Args:
            additional: vLLM's ``additional_config``.
            model_config: The transformers configuration of the checkpoint.

        Raises:
            EngineError: An option is unknown, out of range or missing.
        """
        values = additional.get(KEY, {}) if isinstance(additional, Mapping) else {}
        if not isinstance(values, Mapping):
            raise EngineError(f'additional_config.{KEY} must be a mapping like {{"cr": 4}}, not {values!r}')
        values = {name: value for name, value in values.items() if name != ARMS}
        names = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(names) - set(_FORMER_NAMES)):
            raise EngineError(f"additional_config.{KEY} has no option {unknown[0]!r}; it has: {', '.join(names)}")
        for former, name in _FORMER_NAMES.items():
            if former in values and name in values:
                raise EngineError(
                    f"additional_config.{KEY}.{former} is the former name of {name}: leave one of them out"
                )
        values = {_FORMER_NAMES.get(name, name): value for name, value in values.items()}
        if isinstance(parameters := values.get("parameters"), Mapping):
            values["parameters"] = tuple(sorted(parameters.items()))
        unused = values.get("unused")
        if isinstance(unused, list | tuple) and all(isinstance(row, int) for row in unused):
            values["unused"] = frozenset(unused)
        options = cls(**values)
        _require_read(values, options)
        if options.method in ("window", "random", *HOSTED) and not options.cr and not options.kv_budget:
            raise EngineError(f"additional_config.{KEY}.method {options.method!r} needs a cr, e.g. 4, or a kv_budget")
        gate = GateConfig.from_hf(model_config) if has_gates(model_config) else GateConfig(window=0)
        trained_cr = gate.cr if options.method == "dms" else 1.0
        if options.method == "dmc":  # what is merged is gone for the very query that is merged with it
            trained_cr = float(getattr(model_config, "dmc_cr", None) or 1.0)
            values |= {"window": 0, "decision_offset": 1}
            options = cls(**values)
        if options.hosted:
            try:
                options.make_method()
            except MethodError as error:  # now, not when the weights are loaded
                raise EngineError(f"additional_config.{KEY}: {error}") from error
        window = options.window if options.window >= 0 else gate.window
        # Verdicts by a hash are on the token before, whatever the checkpoint's gates are.
        own_offset = gate.decision_offset if options.method == "dms" else 1
        offset = values.get("decision_offset", own_offset)
        return cls(**{**values, "cr": options.cr or trained_cr, "window": window, "decision_offset": offset})

    @property
    def hosted(self) -> bool:
        """Whether the method runs by its own state (`hyperscale.engines.vllm.worker.methods.hosted`)."""
        return self.method in HOSTED or (self.method in ("window", "random") and bool(self.parameters))

    def make_method(self) -> "Method":
        """The method of `hyperscale.methods`, of hosted ones.

        Raises:
            MethodError: A parameter is unknown or out of range.
        """
        from hyperscale import methods

        params = dict(self.parameters)
        if self.kv_budget:
            params.setdefault("budget", self.kv_budget)
        return methods.create(self.method, cr=self.cr or 1.0, **params)

    def expected_entries(self, prompt_tokens: int, L: int, *, decodes: bool = False) -> float:
        """Live entries of a list that admission expects at a request's end.

        Args:
            prompt_tokens: Tokens of the prompt.
            L: Most tokens that it may generate.
            decodes: Whether its prompt is done: a hosted method holds all of it until then, and its budget afterwards.
        """
        if self.hosted:
            # All that it can ever hold: a hosted method's request is never preempted.
            method = self.make_method()
            allowance = None if method.kind == "selector" else method.allowance(prompt_tokens, L, L)
            kept = prompt_tokens + L if allowance is None else min(prompt_tokens + L, allowance)
            return kept if decodes else max(prompt_tokens, kept)
        total = prompt_tokens + ceil(L * self.reserve_output_fraction)
        if self.method == "none":
            return total
        if self.gated:
            return self.gated_entries(total)
        return min(total, self.row_budget(self.floor(prompt_tokens, prompt_tokens + L), total))

    @property
    def gated(self) -> bool:
        """Whether verdicts decide how many entries stay, so that the number is a guess."""
        return self.method in ("dms", "dmc", "hashed")

    def gated_entries(self, tokens: int) -> float:
        """Live entries of a list that are expected after so many tokens, where verdicts decide."""
        # The newest w tokens stay whatever their verdicts; of the older ones 1 / CR, and some slack.
        young = min(self.window, tokens)
        return min(tokens, (tokens - young) * min(1.0, 1 / self.cr + self.slack) + young)

    def floor(self, prompt_tokens: Count, total: Count) -> Count:
        """The part of a row's budget that does not depend on the sequence so far; prompts are pinned.

        Args:
            prompt_tokens: P.
            total: P + L.
        """
        always = prompt_tokens + self.recent
        if not self.kv_budget:
            return budget_floor(self.budget_rule, self.cr, always, total)
        return max(always, self.kv_budget) if isinstance(always, int) else always.clamp(min=self.kv_budget)

    def row_budget(self, floor: Count, tokens: Count) -> Count:
        """Most live entries of a list when the sequence has so many tokens; ``floor`` is what `floor` gives."""
        return floor if self.kv_budget else row_budget(self.budget_rule, self.cr, floor, tokens)


def _require_read(values: Mapping[str, Any], options: Options) -> None:
    """Refuse options that a method which runs by its parameters does not read.

    Raises:
        EngineError: It is.
    """
    if any(name == "cr" for name, _ in options.parameters):
        raise EngineError(f"additional_config.{KEY}.parameters has a cr, which is an option of its own: {KEY}.cr")
    named = dict(options.parameters)  # where both name it, as `with_own_parameters` does, they are the same
    also_given = [name for name, parameter in _PARAMETERS.items() if name in values and parameter not in named]
    if options.hosted and also_given:
        raise EngineError(
            f"additional_config.{KEY}.{also_given[0]} is not read of {options.method} with its own parameters: name it "
            f"in {KEY}.parameters (recent, rule)"
        )
