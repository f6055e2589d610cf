"""Builds the options of a command from a pydantic model of its settings."""

import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from hyperscale.cli import arguments
from hyperscale.errors import ConfigError
from hyperscale.utils.settings import Setting, settings_of


def with_options(
    schema: type[BaseModel], *, asked_for_later: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of a model, before the options that it declares itself.

    The command's first parameter takes the values that the user gave, by the names of the fields: parsed from text, but
    not validated, and without those that were left out. A required field is a required option.

    Args:
        schema: The model.
        asked_for_later: Required fields that are no required options, as the command does not always need them.

    Example::

        @with_options(RunConfig)
        def run(settings: dict[str, Any], out: Annotated[Path | None, typer.Option()] = None) -> None: ...
    """
    settings = settings_of(schema)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        _, *own = signature.parameters.values()  # the first takes the settings

        @wraps(command)
        def call(**values: Any) -> None:
            try:
                parsed_values = {setting.field: parse(setting, values.pop(setting.field)) for setting in settings}
            except ConfigError as error:
                if values.get("as_json"):  # whoever reads the events learns of it too
                    from hyperscale.cli.display.json_events import JsonObserver

                    JsonObserver(sys.stdout).on_failure(str(error))
                raise
            command({field: value for field, value in parsed_values.items() if value is not None}, **values)

        required = {setting.field for setting in settings if setting.required}.difference(asked_for_later)
        parameters = [*(_parameter(setting, required=setting.field in required) for setting in settings), *own]
        # Typer reads the signature and the annotations of what it is given; both are the command's with the options.
        call.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
        del call.__wrapped__  # which inspect would follow to the bare command
        return call

    return decorate


def parse(setting: Setting, value: Any) -> Any:
    """The value of an option as the model takes it; None if it was not given.

    Raises:
        ConfigError: The text is no list, pair or the like.
    """
    if setting.form == "flag":
        return value or None
    if setting.form == "list":
        kind = setting.type
        return arguments.names(setting.option, value) if kind is str else arguments.numbers(setting.option, value, kind)
    if setting.form == "pairs":
        return arguments.pairs(setting.option, value)
    if setting.form == "typed pairs":
        return arguments.typed_pairs(setting.option, value, setting.example)
    if setting.form == "nested":
        read: Callable[..., Mapping[str, Any] | None] = arguments.nested if setting.plain_text else arguments.typed
        return read(setting.option, value, setting.example)
    return value


def _parameter(setting: Setting, *, required: bool) -> inspect.Parameter:
    """The parameter that Typer makes an option of; every default is None, so that a file's value can stand."""
    names = [setting.option]
    if setting.form == "switch":
        names = [f"{setting.option}/--no-{setting.option.removeprefix('--')}"]
    # Lists are one text with commas; pairs are an option that is given again and again.
    kind: Any = {"list": str, "pairs": list[str], "typed pairs": list[str], "nested": list[str]}.get(
        setting.form, setting.type
    )
    if setting.form == "flag":
        default: Any = False
    else:
        default = inspect.Parameter.empty if required else None
        kind = kind if required else kind | None
    option = typer.Option(
        *names, help=setting.help, show_default=False, metavar=_metavar(setting), rich_help_panel=setting.group or None
    )
    return inspect.Parameter(
        setting.field, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _metavar(setting: Setting) -> str | None:
    """What the help shows for the value; None for what Typer shows itself."""
    if setting.form == "list":
        return f"<{setting.type.__name__},…>"
    return {"pairs": "<name=value>", "typed pairs": "<name=value>", "nested": "<name.key=value>"}.get(setting.form)
