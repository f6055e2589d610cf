"""Knows the models that a user has named: ``models.yaml`` in the user's configuration folder."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hyperscale.errors import ModelError
from hyperscale.models.folders import model_in_folder
from hyperscale.models.model import Model
from hyperscale.models.model_file import known_models
from hyperscale.utils.files import write_atomic
from hyperscale.utils.paths import expand_home
from hyperscale.utils.validation import validate
from hyperscale.utils.yaml_files import YamlFile, read_yaml

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_REMEDY = "write models like `name: {folder: /path/of/a/retrofit}`"


class _UserEntry(BaseModel):
    """An entry of the user's file: a folder as ``--model`` takes it, and a line about it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str = Field(min_length=1)
    note: str = ""


def models_file() -> Path:
    """The user's file, whether it is there or not: in ``$XDG_CONFIG_HOME``, else in ``~/.config``."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return expand_home(Path(home)) / "hyperscale" / "models.yaml"


def user_model_names() -> dict[str, str]:
    """Names of the user's models, with a line each.

    Raises:
        ModelError: The file cannot be read or an entry makes no sense.
    """
    return {name: f"{entry.note}; yours, {entry.folder}".removeprefix("; ") for name, entry in _read().items()}


def find_user_model(name: str) -> Model | None:
    """The user's model of a name; None if there is none.

    Raises:
        ModelError: The file cannot be read, an entry makes no sense, or the folder is gone or no model.
    """
    entry = _read().get(name)
    if entry is None:
        return None
    folder = expand_home(Path(entry.folder))
    if not folder.is_dir():
        raise ModelError(
            f"model {name!r} is {folder} by {models_file()}, and that folder is not there: put it back, or "
            "change the entry"
        )
    return replace(model_in_folder(name, folder.resolve()), name=name)


def add_user_model(folder: Path, name: str) -> str:
    """Give a folder a name that ``--model`` takes.

    Args:
        folder: A checkpoint, or what ``hyperscale retrofit`` made.
        name: The name.

    Returns:
        What was done, in a line.

    Raises:
        ModelError: The folder holds no model, or the name is taken or no name.
    """
    if not _NAME.fullmatch(name):
        raise ModelError(f"{name!r} is no name for a model: use letters, digits, dots, hyphens and underscores")
    if name in known_models():
        raise ModelError(f"{name} is a model that this package knows already: choose another name")
    path = expand_home(folder).resolve()
    if not path.is_dir():
        raise ModelError(f"no folder {folder}: pass the folder of a checkpoint or of a retrofit")
    model = model_in_folder(name, path)
    file, entries = models_file(), _read()
    before = entries.get(name)
    if before is not None and expand_home(Path(before.folder)) != path:
        raise ModelError(f"{name} is {before.folder} already: choose another name, or remove it from {file}")
    if before is None:
        import json

        old = file.read_text(encoding="utf-8") if file.is_file() else ""
        file.parent.mkdir(parents=True, exist_ok=True)
        # Appended, so that comments of the user's stay; JSON texts are YAML texts.
        line = f"{json.dumps(name)}: {{folder: {json.dumps(str(path), ensure_ascii=False)}}}\n"
        text = old + ("\n" if old and not old.endswith("\n") else "") + line
        read_yaml(file, ModelError, f"no line can be added to such a file: write {line.strip()} into it", text=text)
        write_atomic(file, text)
    ratios = [f"{kind} at {', '.join(f'{cr:g}×' for cr in paths)}" for kind, paths in model.retrofits.items()]
    return f"--model {name} is {path}: {'; '.join(ratios) or 'no retrofit'} (in {file})"


def _read() -> Mapping[str, _UserEntry]:
    path = models_file()
    if not path.is_file() or all(line.strip()[:1] in (b"", b"#") for line in path.read_bytes().splitlines()):
        return {}  # nothing, or comments alone
    file: YamlFile = read_yaml(path, ModelError, _REMEDY)

    def check(name: Any, values: Any) -> _UserEntry:
        place = f"{file.place((name,))}: model {name!r}"
        if name in known_models():
            raise ModelError(f"{place}: this package knows a model of that name already: choose another")
        return validate(_UserEntry, values, ModelError, place, _REMEDY)

    return {name: check(name, values) for name, values in file.values.items()}
