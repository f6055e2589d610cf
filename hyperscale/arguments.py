"""Values of the command line: lists and pairs in one text. Every function raises ConfigError for other texts."""

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


def nested(option: str, texts: list[str] | None) -> dict[str, dict[str, str]] | None:
    """``name.parameter=value`` texts by name and parameter."""
    found: dict[str, dict[str, str]] = {}
    for name, value in (pairs(option, texts) or {}).items():
        task, dot, param = name.partition(".")
        if not dot:
            raise ConfigError(f"{option}: write task.parameter=value, e.g. livecodebench.end_date=2024-12-31")
        found.setdefault(task, {})[param] = value
    return found or None


def numbers(option: str, text: str | None, kind: Callable[[str], Any]) -> list[Any] | None:
    """Numbers with commas between them."""
    try:
        return None if text is None else [kind(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option} {text!r} is not a list of numbers: write them with commas between them") from None
