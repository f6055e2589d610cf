"""Writes files that survive kills, full disks and power cuts."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

#: Bytes that are read at a time.
_CHUNK = 2**16


def write_atomic(path: Path, contents: str | bytes | Iterable[bytes]) -> None:
    """Replace a file's contents so that a reader or a crash sees the old ones or the new ones, never a part.

    Args:
        path: The file.
        contents: Text, which is written in UTF-8, bytes, or the bytes in parts. The parts may be made of the old
            contents, which stay until the last one is written.

    Raises:
        OSError: The disk is full or fails; the old contents stay, as they do if making a part raises anything.
    """
    if isinstance(contents, str):
        contents = contents.encode()
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines([contents] if isinstance(contents, bytes) else contents)
            file.flush()
            # The contents reach the disk before the name points at them: a rename may be written first otherwise.
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
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


def complete_length(path: Path) -> int:
    """Bytes of a file up to and with its last newline: what of it are complete lines."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        # From the end backwards, since only the last line can be cut off.
        while end:
            start = max(end - _CHUNK, 0)
            file.seek(start)
            if (newline := file.read(end - start).rfind(b"\n")) >= 0:
                return start + newline + 1
            end = start
    return 0
