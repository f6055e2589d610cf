"""Finds the checkpoint that a method runs at a CR, makes sure that it can be had, and tells its shape."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperscale.errors import ModelError
from hyperscale.models.config_file import read_config
from hyperscale.models.gate_files import read_available_config, read_gate_of
from hyperscale.models.model_file import known_models
from hyperscale.models.registry import find
from hyperscale.models.shape import Shape, count_parameters, shape_from_config
from hyperscale.utils.hub import cached_config, download_command, download_file, reachable

_GGUF = re.compile(r"(?i)\bgguf\b")


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


def resolve(model: str, method: str, cr: float) -> Checkpoint:
    """The checkpoint that a method runs at a CR.

    Raises:
        ModelError: The model is unknown or missing, nobody retrofitted it for this method and CR, or it is a retrofit
            that this method would misread.
        MethodError: The method is unknown.
    """
    from hyperscale import methods

    entry = find(model)
    path = entry.base
    kind = methods.retrofit_kind(method)
    if kind:
        paths = entry.retrofits.get(kind, {})
        if not paths and model not in known_models() and read_available_config(path) is None:
            require(path, model, weights=False)  # which says what to do
        if cr not in paths:
            offer = ", ".join(f"{ratio:g}" for ratio in paths)
            raise ModelError(
                f"{model} has {kind.upper()} checkpoints at CR {offer}, not {cr:g}: pass --cr {offer.replace(' ', '')}"
                if offer
                else f"{model} has no {kind.upper()} checkpoint, which {method} needs: {no_retrofit(model, cr, kind)}"
            )
        path = paths[cr]
    if Path(path).is_absolute() and not (Path(path) / "config.json").is_file():
        raise ModelError(f"the checkpoint {path} of {model} is missing: {_advise_restoring(model)}")
    # What models.yaml lists as a base is one, unless it is said to be a retrofit as well.
    is_listed = entry is known_models().get(model) and path not in entry.dms.values()
    if not kind and not is_listed and _needs_own_method(path):
        raise ModelError(
            f"{model} is a retrofit that uses neurons of its attention for its decisions{_why_borrowed(path)}, and "
            f"{method} would take them for attention: pass the original model, or a folder with it in base/ and the "
            "retrofit beside it"
        )
    return Checkpoint(path, entry.name, entry.family)


def _needs_own_method(path: str) -> bool:
    """Whether a checkpoint gives sense only under the method that it was retrofitted with, as far as can be told."""
    config = read_available_config(path)
    if config is None:
        return False
    gate = read_gate_of(path, config)
    return config.get("dmc_cr") is not None or (gate is not None and not gate.separate)


def _why_borrowed(path: str) -> str:
    """Where it stands that DMS borrows neurons; nothing of a retrofit of another kind."""
    config = read_available_config(path) or {}
    if read_gate_of(path, config) is None:
        return ""
    return f" (dms_separate_alpha is {'missing' if config.get('dms_separate_alpha') is None else 'false'})"


def _advise_restoring(model: str) -> str:
    return "install the package again" if model in known_models() else "put it back, or retrofit from where it is now"


def no_retrofit(model: str, cr: float = 8.0, kind: str = "dms") -> str:
    """What to do about a model that nobody has retrofitted."""
    if kind == "dmc":
        return (
            "only the built-in model can be retrofitted with it, by `python -m hyperscale.mini.train --method dmc "
            "--base BASE --out DIR`; then put BASE into DIR as base/ and pass --model DIR"
        )
    offers = ", ".join(name for name, entry in known_models().items() if entry.dms)
    return (
        f"make one with `hyperscale retrofit --model {model} --data FILE --cr {cr:g} --out DIR`, then "
        f"`hyperscale run --model DIR --method dms --cr {cr:g}`; or choose one of {offers}"
    )


def require(path: str, model: str, *, weights: bool = True) -> None:
    """Make sure that a checkpoint is here or can be downloaded.

    Args:
        path: The checkpoint: an absolute folder or a hub id.
        model: What the user called the model.
        weights: Whether its weights are needed too, or ``config.json`` alone.

    Raises:
        ModelError: It is neither; the message names what is missing and how to get it.
    """
    if not Path(path).is_absolute() and not cached_config(path) and _GGUF.search(path):
        raise ModelError(
            f"{path} is by its name a repository of GGUF files, which do not run here: pass the hub id of the original "
            "model, whose weights are safetensors"
        )
    if Path(path).is_absolute() or cached_config(path) or reachable():
        return  # of a folder `resolve` has seen the files
    gate = f"accept the terms at https://huggingface.co/{path}, `hf auth login`, then "
    first = gate if any(entry.gated and entry.base == path for entry in known_models().values()) else ""
    what, file = ("weights", "") if weights else ("sizes", " config.json")
    raise ModelError(
        f"the {what} of {model} ({path}) are not on this machine and the hub cannot be reached: {first}run "
        f"`{download_command(path)}{file}` where there is a network, or pass a local folder with --model"
        + ("; --dry-run plans without weights" if weights and find(model).shape else "")
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
        # Weights of many gigabytes would take minutes: the header and the last tensors tell checkpoints apart.
        with file.open("rb") as data:
            digest.update(data.read(1 << 24))
            if size > 1 << 25:
                data.seek(-(1 << 24), 2)
            digest.update(data.read(1 << 24))
    return digest.hexdigest()[:16]


def read_checkpoint_config(path: str) -> dict[str, Any]:
    """The contents of a checkpoint's ``config.json``.

    Args:
        path: A folder or a hub id.

    Raises:
        ModelError: It cannot be read or downloaded.
    """
    folder = Path(path)
    return read_config(folder if folder.is_dir() else download_file(path, "config.json").parent)


def shape_of(model: str, path: str) -> Shape:
    """The shape of a model's checkpoint: as its files say, else as the registry knows it, else as the hub says.

    Args:
        model: The model's name, folder or hub id.
        path: The checkpoint: an absolute folder or a hub id.

    Raises:
        ModelError: The checkpoint's configuration cannot be read or is of another kind.
    """
    if Path(path).is_absolute():
        return shape_from_config(read_config(Path(path)), path, count_parameters(Path(path)))
    if shape := find(model).shape:
        return shape
    require(path, model, weights=False)
    return shape_from_config(read_checkpoint_config(path), path)
