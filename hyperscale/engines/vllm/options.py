"""What a user can set of the plugin: the expiry rule, its parameters and how cautious admission is."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import ceil
from typing import Any, Literal

from hyperscale.errors import EngineError
from hyperscale.methods.core.row_budget import budget_floor, row_budget

KEY = "hyperscale"
"""Where the options stand in vLLM's ``additional_config``."""

PAGE_TOKENS = 32
"""N, unless the user chooses: coarser superblocks cost short requests more than they save the scheduler."""

RULES = ("none", "dms", "window", "random", "hashed")

DECODES = ("auto", "fa3", "triton")

_KINDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Options:
    """Settings of one vLLM engine, as ``--additional-config '{"hyperscale": {...}}'`` gives them.

    Attributes:
        rule: When entries expire: "none" keeps all, "hashed" is DMS with verdicts by a hash of position, layer and
            head, 1 / CR of which keep an entry: for measurements of speed, on any checkpoint. The others are the
            methods of these names.
        cr: Nominal compression ratio; 0 for the checkpoint's own (``dms_cr``), which is 1 where it has none.
        window: w of DMS, in tokens; -1 for the checkpoint's own.
        recent: Of window and random, as in `hyperscale.methods.core.budgeted`.
        share: Their rule of the budget, likewise.
        slack: Added to 1 / CR where admission guesses which part of a request's tokens stays live.
        reserve_output_fraction: Part of ``max_tokens`` that admission expects a request to generate. Less admits more
            requests at once; where it is too little, vLLM preempts.
        vocabulary: Rows of the output layer that are tokens; the others are never drawn. 0 for all.
        decode: On CUDA, what attends for decode steps: FlashAttention 3, the plugin's own kernel, or the former where
            it is there.
        full_graphs: On CUDA, whether whole decode steps are CUDA graphs, not only what lies between attention layers.
    """

    rule: Literal["none", "dms", "window", "random", "hashed"] = "dms"
    cr: float = 0.0
    window: int = -1
    recent: int = 16
    share: Literal["proportional", "fixed"] = "proportional"
    slack: float = 0.05
    reserve_output_fraction: float = 1.0
    vocabulary: int = 0
    decode: Literal["auto", "fa3", "triton"] = "auto"
    full_graphs: bool = False

    def __post_init__(self) -> None:
        for each in fields(self):
            value, wanted = getattr(self, each.name), type(each.default)
            # JSON knows no difference between 8 and 8.0; to Python, true is an int.
            if not isinstance(value, (int, float) if wanted is float else wanted) or (
                isinstance(value, bool) and wanted is not bool
            ):
                raise EngineError(f"additional_config.{KEY}.{each.name} must be {_KINDS[wanted]}, not {value!r}")
        checks = {
            f"rule must be one of {', '.join(RULES)}, not {self.rule!r}": self.rule in RULES,
            f"decode must be one of {', '.join(DECODES)}, not {self.decode!r}": self.decode in DECODES,
            f"share must be 'proportional' or 'fixed', not {self.share!r}": self.share in ("proportional", "fixed"),
            f"cr must be at least 1, or 0 for the checkpoint's, not {self.cr}": self.cr == 0 or self.cr >= 1,
            f"window must be at least 0, or -1 for the checkpoint's, not {self.window}": self.window >= -1,
            f"recent must be at least 1, not {self.recent}": self.recent >= 1,
            f"vocabulary must be at least 0, not {self.vocabulary}": self.vocabulary >= 0,
            f"slack must be at least 0, not {self.slack}": self.slack >= 0,
            f"reserve_output_fraction must lie in [0, 1], not {self.reserve_output_fraction}": (
                0 <= self.reserve_output_fraction <= 1
            ),
        }
        for message, holds in checks.items():
            if not holds:
                raise EngineError(f"additional_config.{KEY}.{message}")

    @classmethod
    def read(cls, additional: Any, checkpoint: Any) -> "Options":
        """The options of an engine, with what the checkpoint says filled in.

        Args:
            additional: vLLM's ``additional_config``.
            checkpoint: The transformers configuration.

        Raises:
            EngineError: An option is unknown, out of range or missing.
        """
        given = additional.get(KEY, {}) if isinstance(additional, Mapping) else {}
        if not isinstance(given, Mapping):
            raise EngineError(f'additional_config.{KEY} must be a mapping like {{"cr": 4}}, not {given!r}')
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(given) - set(known)):
            raise EngineError(f"additional_config.{KEY} has no option {unknown[0]!r}; it has: {', '.join(known)}")
        asked = cls(**given)
        if asked.rule in ("window", "random") and not asked.cr:
            raise EngineError(f"additional_config.{KEY}.rule {asked.rule!r} needs a cr, e.g. 4")
        learned = asked.rule == "dms"
        cr = asked.cr or (float(getattr(checkpoint, "dms_cr", 1.0)) if learned else 1.0)
        window = asked.window if asked.window >= 0 else int(getattr(checkpoint, "dms_window_size", 0) or 0)
        return cls(**{**given, "cr": cr, "window": window})

    def expected(self, prompt: int, new_tokens: int) -> float:
        """Live entries of a list that admission reckons with at a request's end, in tokens.

        Args:
            prompt: Tokens of the prompt.
            new_tokens: Tokens it may generate.
        """
        total = prompt + ceil(new_tokens * self.reserve_output_fraction)
        if self.rule == "none":
            return total
        if self.rule in ("dms", "hashed"):
            young = min(self.window, total)
            return min(total, (total - young) * min(1.0, 1 / self.cr + self.slack) + young)
        floor = budget_floor(self.share, self.cr, prompt + self.recent, prompt + new_tokens)
        return min(total, row_budget(self.share, self.cr, floor, total))


DRAWS = "hyperscale_draw"
