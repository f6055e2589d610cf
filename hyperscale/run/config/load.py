"""The values of a configuration, from options or a YAML file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hyperscale.errors import ConfigError
from hyperscale.run.config.schema import RunConfig


def make(values: dict[str, Any]) -> RunConfig:
    """Check the values of a configuration.

    Raises:
        ConfigError: A value has the wrong type or range, or an unknown name.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "configuration"
        what = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
        raise ConfigError(f"{where}: {what}, got {first['input']!r}") from None


def read(path: Path) -> dict[str, Any]:
    """Values of a run's YAML file; a single word stands for a list of one.

    Raises:
        ConfigError: The file is missing or is not a YAML mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot read {path} ({reason}): pass a YAML file with the fields of a run") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a mapping: write fields like `model: mini` and `budget: 8x`")
    if isinstance(values.get("data"), str):
        values["data"] = {"": values["data"]}
    for name in ("methods", "tasks", "lengths", "crs", "seeds"):
        if name in values and not isinstance(values[name], list):
            values[name] = [values[name]]
    return values


def over(values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file with those of the command line over them, parameter by parameter where they are nested."""
    made = dict(values)
    for name, value in options.items():
        old = made.get(name)
        if name in ("params", "task_params") and isinstance(old, dict) and value is not None:
            inner = {key: each if isinstance(each, dict) else {} for key, each in old.items()}
            made[name] = old | {key: {**inner.get(key, {}), **each} for key, each in value.items()}
        elif value is not None:
            made[name] = value
    return made
