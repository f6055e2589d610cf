"""Reads the DMS gates that a checkpoint has by its files, wherever it is, and completes its configuration with them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hyperscale.methods.core.dms_config import (
    FORMATS,
    METADATA,
    GateConfig,
    Metadata,
    find_metadata,
    read_gate,
    read_metadata,
    unknown_keys,
)
from hyperscale.models.config_file import read_config
from hyperscale.utils.hub import available_file


def read_gate_of(path: str, config: Mapping[str, Any] | None = None) -> GateConfig | None:
    """The settings of a checkpoint's DMS gates.

    Args:
        path: A folder or a hub id.
        config: The contents of its ``config.json``, if they are read already.

    Returns:
        None if it has no gates, or is a hub id whose configuration is not at hand.

    Raises:
        ModelError: A key makes no sense.
    """
    config = read_available_config(path) if config is None else config
    return None if config is None else read_gate(config, _find_metadata(path), _place(path))


def read_available_config(path: str) -> dict[str, Any] | None:
    """The contents of a checkpoint's ``config.json``; None if it is on the hub and cannot be had now.

    Raises:
        ModelError: It cannot be read.
    """
    if Path(path).is_dir():
        return read_config(Path(path))
    file = available_file(path, "config.json")
    return None if file is None else read_config(file.parent)


def complete_config(config: Any, path: str) -> None:
    """Give a transformers configuration every ``dms_*`` key of its checkpoint's gates; without gates it stays as it is.

    Args:
        config: The configuration; changed.
        path: The checkpoint: a folder or a hub id.

    Raises:
        ModelError: A key makes no sense.
    """
    gate = read_gate_of(path, vars(config))
    if gate is None:
        return
    for key in ("dms_alpha_offset", "dms_target_cr"):  # FastDMS's names of what `to_hf` writes under NVIDIA's
        vars(config).pop(key, None)
    for key, value in gate.to_hf().items():
        setattr(config, key, value)


def gate_notes(paths: Iterable[str]) -> list[str]:
    """What users should know about the gates of some checkpoints, a line each; nothing of those that are not at hand.

    Args:
        paths: Folders and hub ids.

    Raises:
        ModelError: A key makes no sense.
    """
    return [note for path in dict.fromkeys(paths) for note in _notes_on(path)]


def _notes_on(path: str) -> list[str]:
    config = read_available_config(path)
    metadata = _find_metadata(path)
    gate = None if config is None else read_gate(config, metadata, _place(path))
    if config is None or gate is None:
        return []
    notes = []
    if unknown := unknown_keys(config):
        notes.append(f"{_place(path)} has keys that mean nothing here and change nothing: {', '.join(unknown)}")
    if gate.window_implied:
        windows = " and ".join(f"{gate.in_format(form).window} with dms.format={form}" for form in FORMATS)
        notes.append(
            f"{_place(path)} has no dms_window_size: the window is {gate.window}, as in its format's own code "
            f"({windows})"
        )
    if gate.disabled:
        notes.append(f"{_place(path)} has dms_disable_eviction: dms evicts nothing on it")
    return notes


def _find_metadata(path: str) -> Metadata | None:
    if Path(path).is_dir():
        return find_metadata(Path(path))
    file = available_file(path, METADATA)
    return None if file is None else read_metadata(file)


def _place(path: str) -> str:
    return str(Path(path) / "config.json") if Path(path).is_dir() else f"config.json of {path}"
