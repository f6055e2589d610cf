"""Reads the ``config.json`` of a local checkpoint."""

import json
from pathlib import Path
from typing import Any

from hyperscale.errors import ModelError, first_line
from hyperscale.utils.hub import check_pointer


def read_config(folder: Path) -> dict[str, Any]:
    """A local checkpoint's ``config.json``.

    Raises:
        ModelError: It is missing or unreadable.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        check_pointer(folder / "config.json")
        raise ModelError(f"{folder / 'config.json'} is missing or unreadable ({first_line(error)})") from None
    if not isinstance(config, dict):
        raise ModelError(f"{folder / 'config.json'} is not a model configuration")
    return config
