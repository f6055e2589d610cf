"""Reads lists and pairs from the text of one option, and checks paths of output.

Every function raises ConfigError for what it does not take.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hyperscale.errors import ConfigError

#: Files of a run's folder: no command writes anything else under their names.
_FILES_OF_RUNS = ("samples.jsonl", "run.json", "plan.json", "points.csv")


def check_output(option: str, path: Path | None, *read: Path) -> None:
    """Refuse a file of output that would replace a file of a run, or one of those that the command reads."""
    if path is None or not path.is_file():
        return
    if path.resolve().name in _FILES_OF_RUNS or any(other.exists() and path.samefile(other) for other in read):
        raise ConfigError(f"{option} {path} would replace what results are read from: choose another path")


def names(option: str, text: str | None) -> list[str] | None:
    """Names with commas between them."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ConfigError(f"{option} {text!r} has an empty name: write names with commas between them")
    return parts


def numbers(option: str, text: str | None, kind: Callable[[str], Any]) -> list[Any] | None:
    """Numbers with commas between them."""
    try:
        return None if text is None else [kind(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option} {text!r} is not a list of numbers: write them with commas between them") from None


_TASK = re.compile(r"[\w.]+(@\d+)?|lm_eval:[\w.-]+")


def pairs(option: str, texts: list[str] | None) -> dict[str, str] | None:
    """``name=value`` texts by name; a text that begins with no plain name is the value of ""."""
    if not texts:
        return None
    values: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        # A path may hold "=" itself: only what looks like a task's name before it is one.
        name, value = (name, value) if sign and _TASK.fullmatch(name) else ("", text)
        if name in values:
            raise ConfigError(f"{option} gives {name or 'the same'} twice: {values[name]} and {value}")
        values[name] = value
    return values


def typed_pairs(option: str, texts: list[str] | None, example: str) -> dict[str, Any] | None:
    """``name=value`` texts by name; values of JSON become what they are, other ones stay text."""
    values: dict[str, Any] = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        if not (sign and name.isidentifier()):
            raise ConfigError(f"{option} {text!r}: write name=value, e.g. {example}")
        if name in values:
            raise ConfigError(f"{option} gives {name} twice: {values[name]} and {value}")
        values[name] = _parse_json(value)
    return values or None


def nested(option: str, texts: list[str] | None, example: str) -> dict[str, dict[str, str]] | None:
    """``name.parameter=value`` texts by name and parameter; ``example`` is one, for the message."""
    values: dict[str, dict[str, str]] = {}
    for text in texts or ():
        path, sign, value = text.partition("=")
        name, dot, parameter = path.partition(".")
        if not (sign and dot and name and parameter):
            raise ConfigError(f"{option} {text!r}: write name.parameter=value, e.g. {example}")
        parameters = values.setdefault(name, {})
        if parameter in parameters:
            raise ConfigError(f"{option} gives {path} twice: {parameters[parameter]} and {value}")
        parameters[parameter] = value
    return values or None


def typed(option: str, texts: list[str] | None, example: str) -> dict[str, dict[str, Any]] | None:
    """As `nested`, but numbers, true and false become what they are."""
    values = nested(option, texts, example)
    return values and {
        name: {parameter: _parse(text) for parameter, text in parameters.items()} for name, parameters in values.items()
    }


def _parse(text: str) -> Any:
    """A number or a truth value, if the text is one."""
    value = _parse_json(text)
    return value if isinstance(value, bool | int | float) else text


def _parse_json(text: str) -> Any:
    """A JSON value, if the text is one; Python's spelling of true, false and null is understood as well."""
    words = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
