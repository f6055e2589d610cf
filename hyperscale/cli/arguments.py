"""Values of the command line: lists and pairs in one text. Every function raises ConfigError for other texts."""

import json
from collections.abc import Callable
from typing import Any

from hyperscale.errors import ConfigError


def names(option: str, text: str | None) -> list[str] | None:
    """Names with commas between them."""
    if text is None:
        return None
    found = [part.strip() for part in text.split(",")]
    if not all(found):
        raise ConfigError(f"{option} {text!r} has an empty name: write names with commas between them")
    return found


def pairs(option: str, texts: list[str] | None) -> dict[str, str] | None:
    """``name=value`` texts by name; a text that begins with no plain name is the value of ""."""
    if not texts:
        return None
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        name, value = (name, value) if sign and name.replace("_", "").replace(".", "").isalnum() else ("", text)
        if name in found:
            raise ConfigError(f"{option} gives {name or 'the same'} twice: {found[name]} and {value}")
        found[name] = value
    return found


def nested(option: str, texts: list[str] | None, example: str) -> dict[str, dict[str, str]] | None:
    """``name.parameter=value`` texts by name and parameter; ``example`` is one, for the message."""
    found: dict[str, dict[str, str]] = {}
    for text in texts or ():
        left, sign, value = text.partition("=")
        name, dot, param = left.partition(".")
        if not (sign and dot and name and param):
            raise ConfigError(f"{option} {text!r}: write name.parameter=value, e.g. {example}")
        values = found.setdefault(name, {})
        if param in values:
            raise ConfigError(f"{option} gives {left} twice: {values[param]} and {value}")
        values[param] = value
    return found or None


def typed(option: str, texts: list[str] | None, example: str) -> dict[str, dict[str, Any]] | None:
    """As `nested`, with numbers, true and false for what they are."""
    found = nested(option, texts, example)
    return found and {name: {key: _typed(text) for key, text in each.items()} for name, each in found.items()}


def _typed(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def numbers(option: str, text: str | None, kind: Callable[[str], Any]) -> list[Any] | None:
    """Numbers with commas between them."""
    try:
        return None if text is None else [kind(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option} {text!r} is not a list of numbers: write them with commas between them") from None
