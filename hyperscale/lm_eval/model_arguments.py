"""Reads the arguments of the model: ``--model_args``, and what lm-eval passes along."""

from collections.abc import Mapping
from typing import Any

from hyperscale import models
from hyperscale.errors import ConfigError

AUTO_BATCH = 64
MODEL_ARGS = "in --model_args"


def read_number(name: str, value: Any, kind: type, place: str = "of a task or --gen_kwargs") -> Any:
    """A setting's number.

    Args:
        name: The setting.
        value: What was given.
        kind: int or float.
        place: Where it was given, for the message.

    Raises:
        ConfigError: It is none.
    """
    try:
        number = float(value)
        if isinstance(value, bool) or (kind is int and number != int(number)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{name}={value!r} {place} must be {what}") from None
    return kind(number)


def read_batch_size(batch_size: int | str, most: int | None) -> int:
    """How many chains decode together, as lm-eval writes it: a number, "auto" or "auto:N"."""
    if str(batch_size).partition(":")[0] == "auto":
        return min(AUTO_BATCH, read_number("max_batch_size", most, int, MODEL_ARGS) if most else AUTO_BATCH)
    return int(read_number("batch_size", batch_size, int, "(--batch_size)"))


def choose_ratio(model: str, method: str, cr: float | None, params: Mapping[str, Any]) -> float:
    """The compression ratio asked for, else the only one that the model's retrofits offer; 1 beside a budget in tokens.

    Raises:
        ConfigError: There are several, or none, or a budget in tokens leaves it without effect.
    """
    if "budget" in params:
        beside = ["cr"] * (cr is not None) + ["rule"] * ("rule" in params)
        if beside:
            raise ConfigError(f"{beside[0]} in --model_args has no effect beside budget: give one of them")
        return 1.0
    if cr is not None:
        return float(read_number("cr", cr, float, MODEL_ARGS))
    if method == "vanilla":
        return 1.0
    entry = models.find(model)
    ratios = list(entry.retrofits.get(method, entry.dms))
    if len(ratios) != 1:
        raise ConfigError(
            f"say the compression ratio of {method} in --model_args, e.g. cr={ratios[0] if ratios else 4:g}"
        )
    return ratios[0]
