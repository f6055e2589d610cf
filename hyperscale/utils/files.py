"""Writes files that survive kills, full disks and power cuts. Every file of a user goes through this module."""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

#: Bytes that are read at a time.
_CHUNK = 2**16
#: Most bytes of a file's name that the name beside it repeats: file systems allow 255 in all.
_MAX_STEM = 200


def write_atomic(path: Path, contents: str | bytes | Iterable[bytes]) -> None:
    """Replace a file's contents so that a reader or a crash sees the old ones or the new ones, never a part.

    A link is followed, and what it points at replaced. A device or a pipe (``/dev/stdout``) is written as it is.

    Args:
        path: The file.
        contents: Text, which is written in UTF-8, bytes, or the bytes in parts. The parts may be made of the old
            contents, which stay until the last one is written.

    Raises:
        OSError: The disk is full or fails; the old contents stay, as they do if making a part raises anything.
    """
    if isinstance(contents, str):
        # Bytes of a name that the locale could not read are written as they were.
        contents = contents.encode("utf-8", "surrogateescape")
    parts = [contents] if isinstance(contents, bytes) else contents
    old = _status(path)
    if old is not None and not stat.S_ISREG(old.st_mode):
        with path.open("wb", buffering=0) as file:
            _write_parts(file.fileno(), parts)
        return
    path = Path(os.path.realpath(path))
    temporary = _name_beside(path)
    descriptor = _open_locked(temporary)
    try:
        os.ftruncate(descriptor, 0)  # what a kill left of an earlier write
        _write_parts(descriptor, parts)
        if old is not None:
            with suppress(OSError):
                os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
        # The contents reach the disk before the name points at them: a rename may be written first otherwise.
        os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # a full disk needs the room
        raise
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def append_whole(path: Path, contents: bytes) -> None:
    """Append to a file that others append to as well, all of it or nothing.

    Raises:
        OSError: The disk is full or fails; the file is as long as it was.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        status = os.fstat(descriptor)
        try:
            _write_parts(descriptor, [contents])
            if stat.S_ISREG(status.st_mode):
                os.fsync(descriptor)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(descriptor, status.st_size)
            raise
    finally:
        os.close(descriptor)


@contextmanager
def write_file(path: Path) -> Iterator[Path]:
    """Replace a file that a library writes itself: a crash or a full disk leaves the old one or the new one, whole.

    Yields:
        A name beside it, to be written. When the block ends it takes the place of ``path``; if the block raises
        anything, it is removed and ``path`` stays.

    Raises:
        OSError: The disk is full or fails.
    """
    path = Path(os.path.realpath(path))
    temporary = _name_beside(path)
    try:
        yield temporary
        _sync(temporary)  # before the rename, as in `write_atomic`
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # a full disk needs the room
        raise
    sync_folder(path.parent)


@contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """Make a folder of files that a library writes itself: it appears under its name with all of them, or not at all.

    Yields:
        An empty folder beside it. When the block ends it takes the place of ``path``, and of what stood there; if the
        block raises anything, it is removed.

    Raises:
        OSError: The disk is full or fails.
    """
    path = Path(os.path.realpath(path))
    temporary = _name_beside(path)
    shutil.rmtree(temporary, ignore_errors=True)  # what a kill left
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                _sync(os.path.join(folder, name))  # noqa: PTH118  # os.walk gives texts
            sync_folder(Path(folder))
        # A folder cannot replace another that has files: between the two renames there is none, never a half.
        old = _name_beside(path, "old")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def create_first(path: Path) -> bool:
    """Make an empty file; False if it is there already, as another process has made it.

    Raises:
        OSError: It cannot be made.
    """
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def try_writing(folder: Path) -> None:
    """Find out whether files can be written in a folder, which need not be there yet; leaves nothing.

    Raises:
        OSError: They cannot: a file is in its place, or the file system or its rights refuse it.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    finally:
        for each in made:
            with suppress(OSError):
                each.rmdir()


def take_lock(path: Path) -> IO[bytes]:
    """Open a file that one process at a time has open in this way, without waiting; closing it gives it up.

    The kernel gives it up with the process that holds it, too: a kill leaves no lock behind, though it leaves the file.
    The holder may remove the file.

    Raises:
        BlockingIOError: Another process holds it.
        OSError: The file cannot be made, or its file system has no locks.
    """
    import fcntl

    while True:
        file = path.open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            now = _status(path)
            # The last holder may have removed the file between the two calls: others would lock the next one.
            if now is not None and os.path.samestat(now, os.fstat(file.fileno())):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a power cut."""
    _sync(folder)


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


def cut_torn_line(path: Path) -> None:
    """Take away what stands behind a file's last newline, which is what a kill left of a line.

    Raises:
        OSError: The file cannot be read or written.
    """
    if (length := complete_length(path)) < path.stat().st_size:
        write_atomic(path, path.read_bytes()[:length])


def hash_file(path: Path) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _name_beside(path: Path, suffix: str = "tmp") -> Path:
    """A hidden name in the same folder, the same one every time: what a kill leaves is written over."""
    stem = path.name
    if len(os.fsencode(stem)) > _MAX_STEM:
        stem = hashlib.sha256(os.fsencode(stem)).hexdigest()[:16]
    return path.with_name(f".{stem}.{suffix}")


def _open_locked(path: Path) -> int:
    """A descriptor of a file that no other process writes to: two writers of one file come one after the other."""
    import fcntl

    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            now = _status(path)
            # While this one waited, the other gave the file its final name, or removed it.
            if now is not None and os.path.samestat(now, os.fstat(descriptor)):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _write_parts(descriptor: int, parts: Iterable[bytes]) -> None:
    for part in parts:
        rest = memoryview(part)
        while rest:  # a write may take only a part
            rest = rest[os.write(descriptor, rest) :]


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
