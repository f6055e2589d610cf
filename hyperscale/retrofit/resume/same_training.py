"""Tells whether a folder holds the training that a command asks for, so that the command may go on with it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperscale.errors import RetrofitError
from hyperscale.retrofit.settings import RetrofitSettings
from hyperscale.utils.settings import settings_of

#: Settings that may change between two parts of a training: where it is, how often it is kept, what is computed twice,
#: what is recorded, and the name of a recipe, whose values are compared one by one.
FREE = {"out", "device", "save_minutes", "activations", "cuda_graphs", "recipe_name"}


def list_settings(settings: RetrofitSettings) -> dict[str, Any]:
    """The settings that a resumed training must share, as JSON has them."""
    return settings.model_dump(mode="json", exclude=FREE)


def require_same_settings(folder: Path, stored: Mapping[str, Any], settings: RetrofitSettings) -> None:
    """Refuse to go on with a training that was told something else.

    Args:
        folder: The training's folder.
        stored: Its settings; one that is missing had its default, since it was not there then.
        settings: What is asked for now.

    Raises:
        RetrofitError: Some setting differs; the message names each with both values.
    """
    options = {option.field: option.option for option in settings_of(RetrofitSettings)}
    fields = RetrofitSettings.model_fields
    differing = []
    for name, now in list_settings(settings).items():
        before = stored[name] if name in stored else _as_json(fields[name].get_default())
        if before != now:
            differing.append(f"{options[name]} was {_show(before)} and is now {_show(now)}")
    if differing:
        raise RetrofitError(
            f"{folder} holds a retrofit that was begun with other settings: {'; '.join(differing)}. Pass the same ones "
            "to go on with it, or another --out"
        )


def require_same_data(folder: Path, before: str, now: str) -> None:
    """Refuse to go on with other documents: the training would pass over the wrong ones.

    Raises:
        RetrofitError: The two differ.
    """
    if before != now:
        raise RetrofitError(
            f"the data have changed since the retrofit in {folder} was begun: bring them back to go on with it, or "
            "pass another --out"
        )


def require_same_base(folder: Path, base: str, before: str, now: str) -> None:
    """Refuse to go on with another base model: gates and updates belong to the one that they were trained with.

    Args:
        folder: The training's folder.
        base: The base's folder or hub id.
        before: What named its weights; empty in records of versions that did not keep it.
        now: What names them now.

    Raises:
        RetrofitError: The two differ.
    """
    if before and before != now:
        raise RetrofitError(
            f"{base} is not the model that the retrofit in {folder} was begun with: bring its files back to go on with "
            "it, or pass another --out"
        )


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _show(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_show, value))
    return "unset" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
