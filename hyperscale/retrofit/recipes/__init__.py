"""Named recipes of a retrofit: a YAML file each, of the settings in which it differs from the defaults."""

from functools import cache
from importlib.resources import files
from typing import Any

NAMES = ("paper", "lora", "adapters")
"""From the one that keeps a model's quality best to the one that takes least memory."""


@cache
def _read(name: str) -> dict[str, Any]:
    import yaml

    assert name in NAMES
    values: dict[str, Any] = yaml.safe_load((files(__name__) / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


def name_recipe(train: str) -> str:
    """The recipe in which so much trains.

    Args:
        train: A value of the setting ``train``.
    """
    return next(name for name in NAMES if _read(name)["train"] == train)


def recipe_values(name: str) -> dict[str, Any]:
    """The values of a recipe's settings, by field of `hyperscale.retrofit.settings.TrainingSettings`."""
    return dict(_read(name))
