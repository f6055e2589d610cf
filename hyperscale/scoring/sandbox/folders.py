"""Makes the folders that workers start in, and removes those that a killed process left behind.

Whoever makes a folder holds a lock on it until it ends, however it ends. So a folder without a lock has no owner. The
lock is `flock`'s, which goes with the open descriptor: nothing to clean up, and right across containers that share
``/tmp``.
"""

import contextlib
import fcntl
import functools
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

PREFIX = "hyperscale-code-"
_TRIES = 5


class WorkerFolder:
    """An empty folder that only this user can enter, locked until it is removed."""

    def __init__(self) -> None:
        remove_leftovers()
        # Until the lock is there, another process may take the folder for one without an owner, and remove it.
        for _ in range(_TRIES):
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
            self._lock = _lock(self.path)
            if self._lock is not None and self.path.is_dir():
                return
            self.remove()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))  # folders cannot be locked here, and so none is removed

    def remove(self) -> None:
        """Remove it with all that is in it, and let go of the lock."""
        _remove(self.path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@functools.cache
def remove_leftovers() -> None:
    """Remove this user's folders whose owners have ended; once per process."""
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                _remove_without_owner(Path(entry.path))


def _remove_without_owner(path: Path) -> None:
    with contextlib.suppress(OSError):
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and (lock := _lock(path)) is not None:
            _remove(path)
            os.close(lock)


def _lock(path: Path) -> int | None:
    """A descriptor with the folder's lock; None if another holds it, or where folders cannot be locked."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return None
    return number


def _remove(path: Path) -> None:
    """Remove a folder of ours; programs may have closed folders in it, or nested them deeper than Python goes."""
    if path.is_symlink():  # a program that sees this folder has put a link in its place
        with contextlib.suppress(OSError):
            path.unlink()
        return
    folders = [path]
    while folders:
        folder = folders.pop()
        with contextlib.suppress(OSError):  # a path may be too long
            folder.chmod(0o700)
            with os.scandir(folder) as entries:
                folders += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    with contextlib.suppress(RecursionError):
        shutil.rmtree(path, ignore_errors=True)
    if path.exists() and (rm := shutil.which("rm")) is not None:
        subprocess.run([rm, "-rf", "--", path], check=False, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
