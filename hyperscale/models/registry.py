"""Names of models, and the checkpoint that a method runs at a CR.

A model is a name in ``models.yaml``, a local folder, or a hub id ``owner/name``. A local folder is one checkpoint
(``config.json`` and weights) or a set of them: ``base/`` with retrofits ``dms2/``, ``dms4/``, ``dmc4/``, … beside it,
or the retrofits alone with the record of ``hyperscale retrofit``, which names the base.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hyperscale.errors import ModelError, first_line
from hyperscale.models.shape import Shape, from_config, parameter_count
from hyperscale.utils.hub import load_config, reachable
from hyperscale.utils.validation import validate

_HERE = Path(__file__).resolve().parent
KINDS = ("dms", "dmc")
"""Kinds of retrofits; a folder of one is named by kind and CR."""
_FOLDER = re.compile(rf"({'|'.join(KINDS)})(\d+(?:\.\d+)?)")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Model:
    """What is known of a model before any weights are read.

    Attributes:
        name: The name, folder or hub id it was asked for by.
        base: Checkpoint that methods without a retrofit run: a folder or a hub id.
        retrofits: Kind to CR to checkpoint; kinds without any are left out.
        family: transformers model type, or "" if only the checkpoint says.
        note: One line.
        temperature: Default softmax temperature.
        top_p: Default nucleus mass.
        tasks: Default tasks.
        grid: Default grid of candidates.
        batch_size: Default number of chains that decode together.
        demonstrate: Whether it is small enough for single chains to be shown before the run.
        base_length: L of the base point, in tokens, on tasks that have it; the task's if 0.
        chat: What is special about its chat template.
        gated: Whether the terms of ``base`` must be accepted before it can be downloaded.
        shape: Layers, KV heads, head dimension and parameters, for plans made without the weights.
    """

    name: str
    base: str
    retrofits: Mapping[str, dict[float, str]] = field(default_factory=dict)
    family: str = ""
    note: str = ""
    temperature: float = 0.6
    top_p: float = 0.95
    tasks: tuple[str, ...] = ()
    grid: str = "paper"
    batch_size: int = 64
    demonstrate: bool = False
    base_length: int = 0
    chat: str = ""
    gated: bool = False
    shape: "Shape | None" = None

    @property
    def dms(self) -> dict[float, str]:
        """CR to the checkpoint retrofitted with DMS."""
        return self.retrofits.get("dms", {})


@dataclass(frozen=True)
class Checkpoint:
    """The weights that one method runs at one CR.

    Attributes:
        path: A local folder (absolute) or a hub id.
        name: The model's name.
        family: transformers model type, or "".
    """

    path: str
    name: str
    family: str


@cache
def _registry() -> dict[str, Model]:
    import yaml

    raw: dict[str, dict[str, Any]] = yaml.safe_load((_HERE / "models.yaml").read_text(encoding="utf-8"))
    found = {}
    for name, entry in raw.items():
        made = {kind: entry.pop(kind) for kind in KINDS if kind in entry}
        made = {kind: {float(cr): _located(path) for cr, path in paths.items()} for kind, paths in made.items()}
        tasks = tuple(entry.pop("tasks", ()))
        shape = Shape(**entry.pop("shape")) if "shape" in entry else None
        base = _located(entry.pop("base"))
        found[name] = Model(name=name, base=base, retrofits=made, tasks=tasks, shape=shape, **entry)
    return found


def _located(path: str) -> str:
    return str(_HERE.parent / path) if path.startswith("mini/") else path


def available() -> dict[str, str]:
    """Names of the known models, with a line each."""
    return {name: f"{model.note}; {_offer(model)}" for name, model in _registry().items()}


def _offer(model: Model) -> str:
    offers = [f"{kind} at {', '.join(f'{cr:g}×' for cr in paths)}" for kind, paths in model.retrofits.items()]
    return "; ".join(offers) or "no checkpoint for dms"


def find(model: str) -> Model:
    """Look a model up by name, folder or hub id.

    Raises:
        ModelError: It is none of these.
    """
    if model in _registry():
        return _registry()[model]
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _local(model, folder.resolve())
    if _HUB_ID.fullmatch(model) and not model.startswith((".", "/", "~")):
        return Model(name=model, base=model)
    raise ModelError(
        f"unknown model {model!r}: choose one of {', '.join(_registry())}, or pass a folder or a hub id owner/name"
    )


def _local(name: str, folder: Path) -> Model:
    if (folder / "config.json").is_file():
        config = read_config(folder)
        found = {
            kind: {float(config.get(f"{kind}_cr", 1.0)): str(folder)}
            for kind, key in (("dms", "dms_window_size"), ("dmc", "dmc_cr"))
            if config.get(key) is not None
        }
        return Model(name=name, base=str(folder), retrofits=found, family=str(config.get("model_type", "")))
    found = _beside(folder)
    if (folder / "base" / "config.json").is_file():
        family = str(read_config(folder / "base").get("model_type", ""))
        return Model(name=name, base=str(folder / "base"), retrofits=found, family=family)
    if found:
        record = _read_record(folder)
        known = _registry().get(record.model, Model(name="", base=record.base))
        one = next(path for paths in found.values() for path in paths.values())
        family = str(read_config(Path(one)).get("model_type", ""))
        return replace(known, name=name, base=record.base, retrofits=found, family=family)
    raise ModelError(f"{folder} is not a checkpoint: it has no config.json, no base/config.json and no dms<CR>/")


def _beside(folder: Path) -> dict[str, dict[float, str]]:
    """The retrofits in a folder, by kind and ascending CR."""
    found: dict[str, dict[float, str]] = {}
    matches = [(match, path) for path in folder.iterdir() if (match := _FOLDER.fullmatch(path.name))]
    for match, path in sorted(matches, key=lambda each: (KINDS.index(each[0][1]), float(each[0][2]))):
        if (path / "config.json").is_file():
            found.setdefault(match[1], {})[float(match[2])] = str(path)
    return found


class RetrofitRecord(BaseModel):
    """What of a retrofit's ``training.json`` is read here; `hyperscale.retrofit.job` writes it.

    Attributes:
        model: The model as the user named it.
        base: Its checkpoint, a hub id or an absolute path.
    """

    model: str = ""
    base: str


def _read_record(folder: Path) -> RetrofitRecord:
    """What ``hyperscale retrofit`` wrote of a run."""
    file = folder / "training.json"
    remedy = f"{folder} has retrofits and no base/, so {file.name} must name their base"
    try:
        contents = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file} ({first_line(error)}): {remedy}") from None
    return validate(RetrofitRecord, contents, ModelError, str(file), remedy)


def read_config(folder: Path) -> dict[str, Any]:
    """A local checkpoint's ``config.json``.

    Raises:
        ModelError: It is missing or unreadable.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / 'config.json'} is missing or unreadable ({error})") from None
    if not isinstance(config, dict):
        raise ModelError(f"{folder / 'config.json'} is not a model configuration")
    return config


def resolve(model: str, method: str, cr: float) -> Checkpoint:
    """The checkpoint that a method runs at a CR.

    Raises:
        ModelError: The model is unknown or missing, nobody retrofitted it for this method and CR, or it is a retrofit
            that this method would misread.
        MethodError: The method is unknown.
    """
    from hyperscale import methods

    found = find(model)
    path = found.base
    kind = methods.checkpoint(method)
    if kind:
        made = found.retrofits.get(kind, {})
        if cr not in made:
            offer = ", ".join(f"{c:g}" for c in made)
            raise ModelError(
                f"{model} has {kind.upper()} checkpoints at CR {offer}, not {cr:g}: pass --cr {offer.replace(' ', '')}"
                if offer
                else f"{model} has no {kind.upper()} checkpoint, which {method} needs: {no_retrofit(model, cr, kind)}"
            )
        path = made[cr]
    if Path(path).is_absolute() and not (Path(path) / "config.json").is_file():
        raise ModelError(f"the checkpoint {path} of {model} is missing: {_restore(model)}")
    if not kind and Path(path).is_absolute() and _borrows(read_config(Path(path))):
        raise ModelError(
            f"{model} is a retrofit that uses neurons of its attention for its decisions, and {method} would take them "
            "for attention: pass a folder with its base in base/ and the retrofit beside it"
        )
    return Checkpoint(path, found.name, found.family)


def _borrows(config: dict[str, Any]) -> bool:
    """Whether a checkpoint is only what it is under the method it was retrofitted with."""
    return config.get("dmc_cr") is not None or not config.get("dms_separate_alpha", True)


def _restore(model: str) -> str:
    return "install the package again" if model in _registry() else "put it back, or retrofit from where it is now"


def no_retrofit(model: str, cr: float = 8.0, kind: str = "dms") -> str:
    """What to do about a model that nobody has retrofitted."""
    if kind == "dmc":
        return (
            "only the built-in model can be retrofitted with it, by `python -m hyperscale.mini.train --method dmc "
            "--base BASE --out DIR`; then put BASE into DIR as base/ and pass --model DIR"
        )
    offers = ", ".join(name for name, each in _registry().items() if each.dms)
    return (
        f"make one with `hyperscale retrofit --model {model} --data FILE --cr {cr:g} --out DIR`, then "
        f"`hyperscale run --model DIR --method dms --cr {cr:g}`; or choose one of {offers}"
    )


def require(path: str, model: str) -> None:
    """Make sure that a checkpoint is here or can be downloaded.

    Raises:
        ModelError: It is neither; the message names what is missing and how to get it.
    """
    if Path(path).is_absolute():
        return  # `resolve` has seen its files
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(path, "config.json"), str) and not reachable():
        gate = f"accept the terms at https://huggingface.co/{path}, `hf auth login`, then "
        first = gate if any(each.gated and each.base == path for each in _registry().values()) else ""
        raise ModelError(
            f"the weights of {model} ({path}) are not on this machine and the hub cannot be reached: {first}run "
            f"`hf download {path}` where there is a network, or pass a local folder with --model; "
            "--dry-run plans without weights"
        )


def fingerprint(path: str) -> str:
    """Short hash of a local checkpoint's files (their ends, where they are large), or the hub id itself."""
    if not Path(path).is_absolute():
        return path
    digest = hashlib.sha256()
    for file in sorted(Path(path).glob("*")):
        if file.suffix not in (".json", ".safetensors", ".jinja") or not file.is_file():
            continue
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        with file.open("rb") as data:
            digest.update(data.read(1 << 24))
            if size > 1 << 25:
                data.seek(-(1 << 24), 2)
            digest.update(data.read(1 << 24))
    return digest.hexdigest()[:16]


def shape_of(model: str, path: str) -> Shape:
    """The shape of a model's checkpoint: as its files say, else as the registry knows it, else as the hub says.

    Args:
        model: The model's name, folder or hub id.
        path: The checkpoint: an absolute folder or a hub id.

    Raises:
        ModelError: The checkpoint's configuration cannot be read or is of another kind.
    """
    if Path(path).is_absolute():
        return from_config(read_config(Path(path)), path, parameter_count(Path(path)))
    if known := find(model).shape:
        return known
    require(path, model)
    return from_config(load_config(path).to_dict(), path)
