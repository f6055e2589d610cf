"""Keeps the state of a training in a file: written to a temporary name, then renamed, so that one is always whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hyperscale.errors import RetrofitError, first_line
from hyperscale.utils.files import write_file

#: Name of the file in the training's folder.
STATE = "state.pt"


def write_state(folder: Path, state: dict[str, Any], name: str = STATE) -> None:
    """Write the state; until it is whole on the disk, the last one stays.

    Raises:
        OSError: The disk is full or fails.
    """
    import torch

    try:
        with write_file(folder / name) as temporary:
            torch.save(state, temporary)
    except RuntimeError as error:  # torch's writer says so of a full disk
        raise OSError(first_line(error)) from error


def read_state(folder: Path, name: str = STATE) -> dict[str, Any] | None:
    """The state that was written last, on the CPU; None if there is none.

    Raises:
        RetrofitError: The file cannot be read.
    """
    import torch

    file = folder / name
    if not file.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the damage leads to
        raise RetrofitError(
            f"{file} cannot be read ({first_line(error)}): remove it to begin again, or pass another --out"
        ) from None
    return state


def save_or_warn(folder: Path, state: dict[str, Any], report: Callable[[str], None], name: str = STATE) -> bool:
    """Write the state; a full disk is a line, since the training can go on and the last state stays.

    Returns:
        Whether it was written.
    """
    try:
        write_state(folder, state, name)
    except OSError as error:
        left = "the last one stays" if (folder / name).exists() else "there is none yet to go on from"
        report(f"the state could not be written to {folder} ({first_line(error)}): free some room; {left}")
        return False
    return True
