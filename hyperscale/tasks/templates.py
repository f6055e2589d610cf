"""Renders Jinja templates over a problem's fields, and says which field a template names that there is not."""

import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from hyperscale.errors import TaskError, first_line
from hyperscale.utils.validation import suggestion

if TYPE_CHECKING:
    from jinja2 import Environment, Template
    from jinja2.environment import TemplateExpression

_BRACES = re.compile(r"\{\{[-+]?(.*?)-?\}\}", re.DOTALL)


def render(template: str, fields: Mapping[str, Any]) -> str:
    """A template with a problem's fields in it, as lm-eval would render it.

    Raises:
        TaskError: The template is malformed, fails, or names a field that the problem lacks.
    """
    import jinja2

    try:
        return str(_compile(template).render(**fields))
    except jinja2.UndefinedError as error:
        raise TaskError(_name_missing(template, fields) or first_line(error)) from None
    except _NoTextError as error:
        raise TaskError(_name_empty(template, fields) or f"{{{{…}}}} {error}") from None
    except jinja2.TemplateSyntaxError as error:
        raise TaskError(f"line {error.lineno}: {first_line(error)}") from None
    except Exception as error:  # what filters and operators raise: a sum of a text and a number, a division by zero
        raise TaskError(f"{type(error).__name__}: {first_line(error)}") from None


def evaluate(template: str, fields: Mapping[str, Any]) -> Any:
    """As `render`, but what a template of one expression makes keeps its kind, a list for one; an iterator becomes one.

    Raises:
        TaskError: As `render`.
    """
    text = render(template, fields)  # which says what is wrong
    expression = _expression(template)
    value = text if expression is None else expression(**fields)
    return list(value) if isinstance(value, tuple | Iterator) else value


def fields_of(template: str) -> set[str]:
    """The fields that a template names.

    Raises:
        TaskError: The template is malformed.
    """
    import jinja2
    from jinja2 import meta

    try:
        return meta.find_undeclared_variables(jinja2.Environment(autoescape=False).parse(template))
    except jinja2.TemplateSyntaxError as error:
        raise TaskError(f"line {error.lineno}: {first_line(error)}") from None


def is_template(text: str) -> bool:
    """Whether a text has anything for Jinja to do."""
    return any(mark in text for mark in ("{{", "{%", "{#"))


def _name_missing(template: str, fields: Mapping[str, Any]) -> str | None:
    missing = sorted(fields_of(template) - set(fields))
    if not missing:
        return None
    return f"{missing[0]!r} is no field of the problem{suggestion(missing[0], fields)}"


def _name_empty(template: str, fields: Mapping[str, Any]) -> str | None:
    for name in sorted(fields_of(template) & set(fields)):
        try:
            _require_text(fields[name])
        except _NoTextError as error:
            return f"{name!r} {error}"
    return None


class _NoTextError(Exception):
    """A value would stand in a text as the name that Python has for it."""


def _require_text(value: Any) -> Any:
    """The value, if it may stand in a text.

    Raises:
        _NoTextError: It is nothing, or bytes.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise _NoTextError("is empty: fill it in, leave the problem out, or write {% if … %} around it")
    if isinstance(value, bytes | bytearray):
        raise _NoTextError("is bytes and no text: write it as text")
    return value


@cache
def _environment() -> "Environment":
    # Sandboxed: a task file is data, and its template must not reach the interpreter. Strict: a field that is missing
    # is an error, not an empty text.
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_require_text)


@cache
def _compile(text: str) -> "Template":
    return _environment().from_string(text)


@cache
def _expression(text: str) -> "TemplateExpression | None":
    """The expression that a template consists of; None if it holds anything else."""
    from jinja2 import nodes

    text = text.strip()
    body = _environment().parse(text).body
    parts = body[0].nodes if len(body) == 1 and isinstance(body[0], nodes.Output) else []
    inner = _BRACES.fullmatch(text)
    if inner is None or len(parts) != 1 or isinstance(parts[0], nodes.TemplateData):
        return None
    return _environment().compile_expression(inner[1])
