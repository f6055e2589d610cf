"""Files that survive kills, full disks and power cuts."""

import os
from contextlib import suppress
from pathlib import Path

from hyperscale.errors import HyperscaleError

_CHUNK = 2**16


def write_atomic(path: Path, text: str) -> None:
    """Replace a file's contents so that a reader or a crash sees the old ones or the new ones, never a part.

    Raises:
        OSError: The disk is full or fails; the old contents stay.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # a full disk needs the room
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def complete(path: Path) -> int:
    """Bytes of a file up to and with its last newline."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(end - _CHUNK, 0)
            file.seek(start)
            if (at := file.read(end - start).rfind(b"\n")) >= 0:
                return start + at + 1
            end = start
    return 0


def data_files(path: Path, suffixes: tuple[str, ...], error: type[HyperscaleError]) -> list[Path]:
    """A file, or a folder's files of the right kinds in the order of their names.

    Raises:
        HyperscaleError: Of the type given: there is no such path, or the folder has no such file.
    """
    path = path.expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in suffixes)
        if not files:
            raise error(f"{path} holds no {' or '.join(suffixes)} file: pass --data a file or a folder of them")
        return files
    if path.is_file():
        return [path]
    raise error(f"no file or folder {path}: pass --data a {' or '.join(suffixes)} file, or a folder of them")
