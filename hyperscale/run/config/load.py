"""Reads a run's configuration from options and a YAML file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hyperscale.errors import ConfigError
from hyperscale.run.config.file_checks import check_names
from hyperscale.run.config.schema import RunConfig
from hyperscale.utils.settings import Setting, find_field, settings_of
from hyperscale.utils.validation import Location, first_fault
from hyperscale.utils.yaml_files import YamlFile, read_yaml

_SETTINGS = {setting.field: setting for setting in settings_of(RunConfig)}


def load_config(options: Mapping[str, Any], path: Path | None = None) -> RunConfig:
    """The configuration of a run.

    Args:
        options: Values of the command line, by field; they override the file's, parameter by parameter where they are
            nested.
        path: A YAML file; its keys are the names of the options, ``method: dms``, or of the fields.

    Raises:
        ConfigError: The file cannot be read, or a setting is unknown, twice there or has a wrong value. The message
            names the option, or the file, the line and the key.
        HyperscaleError: The file names a model, method, task, grid or strategy that there is not, or a budget that
            cannot be read; the message names file and line.
    """
    file = read_yaml(path, ConfigError, "pass a YAML file with settings like `model: mini`") if path else None
    keys = _keys_by_field(file) if file else {}
    values = {field: _read(_SETTINGS[field], file.values[key]) for field, key in keys.items()} if file else {}
    try:
        config = RunConfig.model_validate(_merge(values, options))
    except ValidationError as error:
        # The message names what the user wrote: the option if it came from there, else the key of the file.
        (field, *inner), fault = first_fault(error, RunConfig)
        entry = "".join(f".{part}" for part in inner)
        key = keys.get(str(field), "")
        if file is None or not key or _reach(options, (field, *inner)):
            names = "".join(f".{part}" for part in inner if isinstance(part, str))  # an option's list has no places
            raise ConfigError(f"{_SETTINGS[str(field)].option}{names} {fault}") from None
        raise ConfigError(f"{file.place((key, *inner))}: {key}{entry} {fault}") from None
    if file is not None:
        check_names(config, lambda location: _place(file, keys, options, location))
    return config


def _place(file: YamlFile, keys: Mapping[str, str], options: Mapping[str, Any], location: Location) -> str | None:
    """Where a file gives a value; None where an option does, or nothing."""
    field, *inner = location
    key = keys.get(str(field))
    if key is None or (options.get(str(field)) is not None and _reach(options, location)):
        return None
    return file.place((key, *inner))


def make_config(values: Mapping[str, Any], base: RunConfig | Path | None = None) -> RunConfig:
    """The configuration that values make by the names of the options or of the fields, as a program has them.

    Args:
        values: Lists may be single values or texts with commas; None leaves what the base or the default has.
        base: A configuration or a YAML file; the values override it, parameter by parameter where they are nested.

    Raises:
        HyperscaleError: As for `load_config`; a setting may also be there under both of its names.
    """
    options: dict[str, Any] = {}
    for name, value in values.items():
        field = find_field(RunConfig, name)
        if field in options:
            raise ConfigError(f"{name!r} is set under another name, too: leave one out")
        options[field] = None if value is None else _read(_SETTINGS[field], value)
    if isinstance(base, RunConfig):
        return load_config(_merge({name: getattr(base, name) for name in base.model_fields_set}, options))
    return load_config(options, base)


def _keys_by_field(file: YamlFile) -> dict[str, str]:
    """Each field that a file sets, with the key it uses for it."""
    keys: dict[str, str] = {}
    for name, value in file.values.items():
        key = str(name)
        field = find_field(RunConfig, key, file.place((key,)))
        if value is None:  # a key without a value leaves the default
            continue
        if field in keys:
            raise ConfigError(f"{file.place((key,))}: {key!r} is {keys[field]!r} under another name: leave one out")
        keys[field] = key
    return keys


def _read(setting: Setting, value: Any) -> Any:
    """A value of a file as the model takes it: a word stands for a list of one, and lists may be written ``a,b``."""
    value = _plain(value)
    if setting.form == "list" and not isinstance(value, list):
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else [value]
    if setting.form == "pairs" and isinstance(value, str):
        return {"": value}
    return value


def _plain(value: Any) -> Any:
    """A program's value as a file would have it: text for a path, a list for a range or an array, and what is inside.

    What a file cannot hold stays as it is, and is refused where it is read.
    """
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numbers and arrays of NumPy, and tensors
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | range | set | frozenset):
        return [_plain(each) for each in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    return value


def _merge(values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file with those of the command line over them, parameter by parameter where they are nested."""
    result = dict(values)
    for field, value in options.items():
        old = result.get(field)
        if value is None:
            continue
        if _SETTINGS[field].form == "nested" and isinstance(old, dict) and isinstance(value, dict):
            inner = {name: params if isinstance(params, dict) else {} for name, params in old.items()}
            result[field] = old | {name: {**inner.get(name, {}), **params} for name, params in value.items()}
        else:
            result[field] = value
    return result


def _reach(values: Any, location: tuple[str | int, ...]) -> bool:
    """Whether a place exists in nested values."""
    for part in location:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return isinstance(values, str | int | float | list | tuple)
    return values is not None
