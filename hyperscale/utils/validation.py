"""Checks data against a pydantic model, and says in plain words what is wrong and where."""

import difflib
import math
import reprlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hyperscale.errors import HyperscaleError

Location = tuple[str | int, ...]
"""Keys and indices that lead to a value: ``("crs", 0)``."""

M = TypeVar("M", bound=BaseModel)

# Pydantic's types of error, in the words of our messages; the braces are filled from the error's context.
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is unknown",
    "unexpected_keyword_argument": "is unknown",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "path_type": "must be a path",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "mapping_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "dataclass_type": "must be a mapping",
    "none_required": "must be left out",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "has too few entries (at least {min_length})",
    "too_long": "has too many entries (at most {max_length})",
    "string_too_short": "is too short (at least {min_length} characters)",
    "string_pattern_mismatch": "must match {pattern}",
    "json_invalid": "is no JSON",
}
_MOST_NAMED = 60  # names in a message
_UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}
_WITHOUT_VALUE = {"missing", "json_invalid"}  # nothing that was written could be shown
_LONGEST = 60  # characters of a value in a message
_REPR = reprlib.Repr()  # of what holds other values: it may be nested and huge
_REPR.maxdict, _REPR.maxlist, _REPR.maxtuple, _REPR.maxstring, _REPR.maxother = 8, 16, 16, 2 * _LONGEST, 2 * _LONGEST


def validate(
    schema: type[M],
    values: Any,
    failure: type[HyperscaleError],
    place: str | Callable[[Location], str] = "",
    remedy: str = "",
) -> M:
    """The model that some values make.

    Args:
        schema: The model.
        values: What was read, of any type.
        failure: The error to raise.
        place: Where the values come from, e.g. a path; or a function that tells it from the location of the fault, e.g.
            `YamlFile.place`.
        remedy: What to do about it, the end of the message.

    Raises:
        HyperscaleError: Of the type ``failure``: the values do not fit. The message names place, key, fault and value.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        location, fault = first_fault(error, schema)
        where = place(location) if callable(place) else place
        key = ".".join(map(str, location))
        text = ": ".join(part for part in (where, f"{key} {fault}" if key else fault) if part)
        if remedy:
            text += f" {remedy}" if text.endswith("?") else f": {remedy}"
        raise failure(text) from None


def first_fault(error: ValidationError, schema: type[BaseModel] | None = None) -> tuple[Location, str]:
    """Where the first fault lies, and what it is: ``(("crs", 0), "must be at least 1, got 0.5")``.

    Args:
        error: The error of a validation.
        schema: The model that was validated; an unknown key is then compared with the fields where it stands.
    """
    # Only the first: what follows is often a consequence of it. A key that is missing may stand there misspelt.
    errors: list[Any] = list(error.errors())
    first = errors[0]
    if first["type"] == "missing":
        unknown = [e for e in errors if e["type"] in _UNKNOWN and e["loc"][:-1] == first["loc"][:-1]]
        name = str(first["loc"][-1])
        first = next((e for e in unknown if difflib.get_close_matches(str(e["loc"][-1]), [name], n=1)), first)
    return _translate(first, schema)


def all_faults(error: ValidationError, schema: type[BaseModel] | None = None) -> list[tuple[Location, str]]:
    """Where all faults lie and what they are, as `first_fault` tells of one."""
    errors = error.errors()
    # A list with a wrong entry is also one entry short: the entry's fault says it.
    inner = {entry["loc"][:end] for entry in errors for end in range(1, len(entry["loc"]))}
    return [_translate(entry, schema) for entry in errors if entry["loc"] not in inner]


def _translate(entry: Any, schema: type[BaseModel] | None) -> tuple[Location, str]:
    """Where a fault of pydantic's lies, and what it is in our words."""
    location: Location = entry["loc"]
    kind, value = entry["type"], entry["input"]
    # A validator of ours speaks in our words; pydantic's own faults are translated.
    if kind in ("value_error", "assertion_error"):
        fault = str(entry["ctx"]["error"])
    elif kind in _WORDS:
        fault = _WORDS[kind].format(**{name: _plain(limit) for name, limit in entry.get("ctx", {}).items()})
    else:
        fault = entry["msg"].replace("Input should be", "must be", 1)
    if kind in _UNKNOWN:
        around = _model_at(schema, location[:-1])
        return location, fault + (suggestion(str(location[-1]), around.model_fields) if around else "")
    # Of a model that does not agree with itself, the fault names the values; the whole mapping would say nothing more.
    disagrees = kind in ("value_error", "assertion_error") and isinstance(value, dict)
    return location, fault if disagrees or kind in _WITHOUT_VALUE else f"{fault}, got {shorten(value)}"


def _model_at(schema: type[BaseModel] | None, location: Location) -> type[BaseModel] | None:
    """The model that a location inside a model leads to; None if what lies there is no model."""
    for key in location:
        field = schema.model_fields.get(str(key)) if schema else None
        annotation = field.annotation if field else None
        schema = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    return schema


def suggestion(name: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, else all of them; nothing if they are many."""
    choices = sorted(names)
    near = difflib.get_close_matches(name, choices, n=1)
    if near:
        return f": did you mean {near[0]!r}?"
    return f": choose from {', '.join(choices)}" if len(choices) <= _MOST_NAMED else ""


def shorten(value: Any) -> str:
    """A value as Python writes it, on one line and cut to a length that a message bears."""
    text = " ".join((_REPR.repr(value) if isinstance(value, dict | list | tuple) else repr(value)).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _plain(value: Any) -> Any:
    """A limit as people write it: 1, not 1.0."""
    return int(value) if isinstance(value, float) and math.isfinite(value) and value == int(value) else value
