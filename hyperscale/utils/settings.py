"""Settings that are written once, as fields of a pydantic model: their options, YAML keys and documentation follow.

A model declares each setting with `setting`; `settings_of` tells what the command line, the reader of YAML files and
the page of documentation need to know of them.
"""

import json
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from hyperscale.errors import ConfigError
from hyperscale.utils.validation import suggestion

Form = Literal["value", "flag", "switch", "list", "pairs", "typed pairs", "nested"]
"""How a setting is written: one value, ``--name``, ``--name/--no-name``, ``a,b``, ``name=value`` (whose values are
text, or any JSON value) or ``name.key=value``; the last three again and again."""


def setting(
    default: Any,
    description: str,
    *,
    option: str = "",
    unset: str = "",
    example: str = "",
    plain_text: bool = False,
    details: str = "",
    choices: Sequence[str] = (),
    group: str = "",
    **constraints: Any,
) -> Any:
    """A field of a model of settings.

    Args:
        default: Its default; ``...`` if it must be given.
        description: What it is, the help of its option.
        option: Name of the option, without the dashes; the field's name if empty.
        unset: What holds if it is not given, where the default alone does not tell: "the model's".
        example: A value, for the messages of settings of the forms ``name=value`` and ``name.key=value``.
        plain_text: Whether the values of such a setting stay text; else numbers, true and false become what they are.
        details: What the page of documentation says besides.
        choices: The values it can have, where its type does not tell.
        group: Heading in the command's help, of this setting and of those after it up to the next that names one.
        constraints: Further arguments of `pydantic.Field`, e.g. ``ge=1``.
    """
    extra: dict[str, Any] = {
        "option": option,
        "unset": unset,
        "example": example,
        "plain_text": plain_text,
        "details": details,
        "choices": list(choices),
        "group": group,
    }
    return Field(default, description=description, json_schema_extra={"setting": extra}, **constraints)


@dataclass(frozen=True)
class Setting:
    """A field of a model, as it is written by users.

    Attributes:
        field: Name of the field.
        key: Its name in YAML files; ``--`` before it, and dashes for underscores, make the option.
        form: How it is written.
        type: Type of the one value, or of the entries of a list.
        choices: The values it can have; empty if these are not counted.
        required: Whether it has no default.
        default: What holds if it is not given; empty if nothing does.
        description: What it is.
        details: What the documentation says besides.
        example: A value of the form ``name.key=value``.
        plain_text: Whether values of that form stay text.
        group: Heading in the command's help; empty for the general one.
    """

    field: str
    key: str
    form: Form
    type: type
    choices: tuple[str, ...]
    required: bool
    default: str
    description: str
    details: str
    example: str
    plain_text: bool
    group: str

    @property
    def option(self) -> str:
        """Its option: ``--batch-size``."""
        return "--" + self.key.replace("_", "-")

    @property
    def help(self) -> str:
        """Description, choices and default in one text."""
        text = self.description
        if self.choices:
            *first, last = self.choices
            text = f"{text.removesuffix('.')}: {', '.join(first)} or {last}."
        if self.form in ("pairs", "typed pairs", "nested"):
            text = f"{text.removesuffix('.')}; repeatable."
        return f"{text} [{self.default}]" if self.default else text


def settings_of(schema: type[BaseModel]) -> list[Setting]:
    """The settings of a model, in the order of its fields."""
    settings, group = [], ""
    for name, field in schema.model_fields.items():
        group = _own(field).get("group") or group
        settings.append(_setting(name, field, group))
    return settings


def field_names(schema: type[BaseModel]) -> dict[str, str]:
    """Every key that a YAML file may use, to the field it sets: the names of the options, and those of the fields."""
    settings = settings_of(schema)
    return {setting.field: setting.field for setting in settings} | {setting.key: setting.field for setting in settings}


def find_field(schema: type[BaseModel], key: str, place: str = "") -> str:
    """The field that a key sets; dashes are as good as underscores.

    Args:
        schema: The model.
        key: What was written.
        place: Where, for the message.

    Raises:
        ConfigError: There is no such setting; the nearest one is named.
    """
    names = field_names(schema)
    if field := names.get(key.replace("-", "_")):
        return field
    keys = [setting.key for setting in settings_of(schema)]
    raise ConfigError(f"{place}{': ' if place else ''}unknown setting {key!r}{suggestion(key, keys)}")


def _own(field: FieldInfo) -> dict[str, Any]:
    """What `setting` was told of a field."""
    extra = field.json_schema_extra
    own: Any = extra.get("setting", {}) if isinstance(extra, dict) else {}
    return dict(own)


def _setting(name: str, field: FieldInfo, group: str) -> Setting:
    own = _own(field)
    form, kind, choices = _form(field)
    return Setting(
        field=name,
        key=str(own.get("option") or name).replace("-", "_"),
        form=form,
        type=kind,
        choices=choices or tuple(own.get("choices", ())),
        required=field.is_required(),
        default=own.get("unset") or _shown(field, form),
        description=field.description or "",
        details=own.get("details", ""),
        example=own.get("example", ""),
        plain_text=own.get("plain_text", False),
        group=group,
    )


def _shown(field: FieldInfo, form: Form) -> str:
    """A default as a user would write it."""
    value = field.get_default(call_default_factory=True) if not field.is_required() else None
    if value is None or form in ("flag", "switch", "pairs", "typed pairs", "nested"):
        return ""
    if isinstance(value, tuple | list):
        return ",".join(map(_text, value))
    return _text(value)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _form(field: FieldInfo) -> tuple[Form, type, tuple[str, ...]]:
    """How a field is written, the type of its value or entries, and its choices."""
    annotation = _bare(field.annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    # The annotation tells the form: choices, a list, pairs, parameters, a flag (a switch if not off by itself), or a
    # value.
    if origin is Literal:
        return "value", str, tuple(map(str, arguments))
    if origin in (tuple, list):
        return "list", _bare(arguments[0]), ()
    if origin is dict:
        if arguments[1] is Any:
            return "typed pairs", str, ()
        return "nested" if get_origin(_bare(arguments[1])) is dict else "pairs", str, ()
    if annotation is bool:
        return "flag" if field.default is False else "switch", bool, ()
    assert annotation in (str, int, float, Path), f"no option can be made of {annotation}"
    return "value", annotation, ()


def _bare(annotation: Any) -> Any:
    """A type without ``None`` beside it and without annotations."""
    # Annotated and optional types may be nested in any order.
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, types.UnionType):
            (annotation,) = (option for option in get_args(annotation) if option is not type(None))
        else:
            return annotation


def check_json(value: Any) -> None:
    """Refuse what a file of JSON cannot hold.

    Raises:
        ValueError: It is such; the message follows the setting.
    """
    try:
        json.dumps(value)
    except TypeError:
        raise ValueError("must hold numbers, texts, truth values, and lists or mappings of these") from None


def check_characters(value: Any) -> None:
    """Refuse texts inside a value that neither a file's name nor UTF-8 can hold.

    Raises:
        ValueError: A text has the character NUL, or half of a pair of UTF-16.
    """
    if isinstance(value, str):
        # Bytes of a name that the locale could not read come as other halves, and are written as they were.
        if "\0" in value or any("\ud800" <= character <= "\udc7f" for character in value):
            raise ValueError(f"has a character that no file can hold, got {value!r}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_characters(key)
            check_characters(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_characters(inner)
