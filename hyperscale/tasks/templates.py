"""Renders Jinja templates over a problem's fields, and says which field a template names that there is not."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from hyperscale.errors import TaskError, first_line
from hyperscale.utils.validation import suggestion


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
    except jinja2.TemplateSyntaxError as error:
        raise TaskError(f"line {error.lineno}: {first_line(error)}") from None
    except Exception as error:  # what filters and operators raise: a sum of a text and a number, a division by zero
        raise TaskError(f"{type(error).__name__}: {first_line(error)}") from None


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


@cache
def _compile(text: str) -> Any:
    # Sandboxed: a task file is data, and its template must not reach the interpreter. Strict: a field that is missing
    # is an error, not an empty text.
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(text)
