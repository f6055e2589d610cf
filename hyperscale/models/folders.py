"""Recognises the model that a local folder holds.

A folder is one checkpoint (``config.json`` and weights) or a set of them: ``base/`` with retrofits ``dms2/``,
``dms4/``, ``dmc4/``, … beside it, or the retrofits alone with the record of ``hyperscale retrofit``, which names the
base.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hyperscale.errors import ModelError, first_line
from hyperscale.models.config_file import read_config
from hyperscale.models.gate_files import read_gate_of
from hyperscale.models.model import RETROFIT_KINDS, Model
from hyperscale.models.model_file import known_models
from hyperscale.models.weight_files import ADAPTER, explain_gguf
from hyperscale.utils.validation import validate

_RECORD = "training.json"
_RETROFIT_FOLDER = re.compile(rf"({'|'.join(RETROFIT_KINDS)})(\d+(?:\.\d+)?)")


def model_in_folder(name: str, folder: Path) -> Model:
    """The model that a local folder holds.

    Args:
        name: What the user called it.
        folder: The folder, absolute.

    Raises:
        ModelError: It holds no checkpoint, or retrofits whose base cannot be told.
    """
    if (folder / "config.json").is_file():
        return model_of_checkpoint(name, str(folder), read_config(folder))
    retrofits = _find_retrofits(folder)
    if (folder / "base" / "config.json").is_file():
        family = str(read_config(folder / "base").get("model_type", ""))
        return Model(name=name, base=str(folder / "base"), retrofits=retrofits, family=family)
    if retrofits:
        record = _read_record(folder)
        # Defaults are those of the model that was retrofitted, if it is known.
        original = known_models().get(record.model, Model(name="", base=record.base))
        some_path = next(path for paths in retrofits.values() for path in paths.values())
        family = str(read_config(Path(some_path)).get("model_type", ""))
        return replace(original, name=name, base=record.base, retrofits=retrofits, family=family)
    if gguf := sorted(folder.glob("*.gguf")):
        raise ModelError(explain_gguf(gguf[0]))
    if adapter := [name for name in ADAPTER if (folder / name).is_file()]:
        raise ModelError(
            f"{folder} holds an adapter ({adapter[0]}) and no model: merge it into its base with peft "
            "(merge_and_unload, then save_pretrained) and pass that folder"
        )
    if refused := sorted(each.name for each in folder.glob("refused-*") if (each / "config.json").is_file()):
        renamed = refused[0].removeprefix("refused-")
        raise ModelError(
            f"{folder} holds no checkpoint but what the gate check of its retrofit refused ({', '.join(refused)}): "
            f"to run it all the same, rename {refused[0]} to {renamed}"
        )
    if (folder / _RECORD).is_file():
        raise ModelError(f"{folder} holds a retrofit without a checkpoint yet: run the command that began it again")
    raise ModelError(f"{folder} is not a checkpoint: it has no config.json, no base/config.json and no dms<CR>/")


def model_of_checkpoint(name: str, path: str, config: Mapping[str, Any]) -> Model:
    """The model that one checkpoint is: its own base and, if it was retrofitted, its own retrofit.

    Args:
        name: What the user called it.
        path: The checkpoint: an absolute folder or a hub id.
        config: The contents of its ``config.json``.

    Raises:
        ModelError: A key of its gates makes no sense.
    """
    retrofits: dict[str, dict[float, str]] = {}
    if (gate := read_gate_of(path, config)) is not None:
        retrofits["dms"] = {gate.cr: path}
    if (ratio := config.get("dmc_cr")) is not None:
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 1 <= ratio < math.inf:
            raise ModelError(f"dmc_cr in config.json of {path} is {ratio!r}: it must be a number of at least 1")
        retrofits["dmc"] = {float(ratio): path}
    return Model(name=name, base=path, retrofits=retrofits, family=str(config.get("model_type", "")))


def _find_retrofits(folder: Path) -> dict[str, dict[float, str]]:
    """The retrofits in a folder, by kind and ascending CR."""
    retrofits: dict[str, dict[float, str]] = {}
    matches = [(match, path) for path in folder.iterdir() if (match := _RETROFIT_FOLDER.fullmatch(path.name))]
    for match, path in sorted(matches, key=lambda pair: (RETROFIT_KINDS.index(pair[0][1]), float(pair[0][2]))):
        if (path / "config.json").is_file():
            retrofits.setdefault(match[1], {})[float(match[2])] = str(path)
    return retrofits


class RetrofitRecord(BaseModel):
    """What of a retrofit's ``training.json`` is read here; `hyperscale.retrofit.job` writes it.

    Attributes:
        model: The model as the user named it.
        base: Its checkpoint, a hub id or an absolute path.
    """

    model: str = ""
    base: str


def _read_record(folder: Path) -> RetrofitRecord:
    """What ``hyperscale retrofit`` recorded beside its checkpoints."""
    file = folder / _RECORD
    remedy = f"{folder} has retrofits and no base/, so {file.name} must name their base"
    try:
        contents = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file} ({first_line(error)}): {remedy}") from None
    return validate(RetrofitRecord, contents, ModelError, str(file), remedy)
