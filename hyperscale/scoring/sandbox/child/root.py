"""Builds a root directory with nothing of the user in it and moves into it; for the level ``unshare``.

The process already has namespaces of its own, so nothing it mounts is seen outside. It calls mount, pivot_root and
umount2 through ctypes: Python has no functions for them.
"""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_DETACH = 2
_FILES = 2048  # files and folders that a program may have at the same time
_KEPT = {
    "nosuid": _NOSUID,
    "nodev": _NODEV,
    "noexec": _NOEXEC,
    "noatime": 1024,
    "nodiratime": 2048,
    "relatime": 1 << 21,
}
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    arguments = [text.encode() if text is not None else None for text in (source, target, kind)]
    options = data.encode() if data is not None else None
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), options), f"mount {target}")


def _locked(path: str) -> int:
    """Flags of the mount a path is on; in a user namespace they must be kept when it is mounted again."""
    flags = os.statvfs(path).f_flag
    names = {"nosuid": os.ST_NOSUID, "nodev": os.ST_NODEV, "noexec": os.ST_NOEXEC}
    names |= {"noatime": os.ST_NOATIME, "nodiratime": os.ST_NODIRATIME, "relatime": os.ST_RELATIME}
    return sum(_KEPT[name] for name, bit in names.items() if flags & bit)


def enter_root(shown: Sequence[str], hidden: Sequence[str], links: dict[str, str], folder: str, disk: int) -> None:
    """Make a root that shows some paths, read-only, and one small writable folder; then leave the old root for good.

    Args:
        shown: Files and folders to show where they are.
        hidden: Folders inside them to cover with empty ones.
        links: Symbolic links to make, path to target.
        folder: The writable folder, of ``disk`` bytes.
        disk: Bytes.

    Raises:
        OSError: The system does not allow it.
    """
    real = {path: os.path.realpath(path) for path in shown}
    # Mounts made here must not spread to the namespace we came from.
    _mount("none", "/", None, _REC | _PRIVATE)
    # A scratch root: a fresh tmpfs that becomes /, with the old root under /old. The new root is put together beside
    # it, out of reach of links in the old one.
    _mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, "size=1m,mode=0755")  # any folder that exists serves
    for name in ("/tmp/new", "/tmp/old"):
        Path(name).mkdir()
    _pivot("/tmp", "/tmp/old")
    new = "/new"
    _mount("tmpfs", new, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=0755")
    for path in shown:
        source, target = "/old" + real[path], Path(new + path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.mkdir(exist_ok=True) if Path(source).is_dir() else target.touch()
        # A bind mount takes its flags only when it is mounted a second time.
        _mount(source, str(target), None, _BIND | _REC)
        device = 0 if path.startswith("/dev/") else _NODEV
        _mount("none", str(target), None, _BIND | _REMOUNT | _RDONLY | _NOSUID | device | _locked(str(target)))
    for path in hidden:
        _mount("tmpfs", new + path, "tmpfs", _RDONLY | _NOSUID | _NODEV, "size=4k")
    for path, to in links.items():
        Path(new + path).parent.mkdir(parents=True, exist_ok=True)
        Path(new + path).symlink_to(to)
    Path(new + folder).mkdir(parents=True, exist_ok=True)
    bound_folder(new + folder, disk)
    _mount("none", new, None, _REMOUNT | _RDONLY | _NOSUID | _NODEV | _BIND)
    # Away with the old root, then the new one becomes /, and the scratch root below it goes as well.
    _check(_libc.umount2(b"/old", _DETACH), "umount2")
    os.chdir(new)
    _pivot(".", ".")  # both here: the scratch root now lies on top of the new one, until it is unmounted
    _check(_libc.umount2(b".", _DETACH), "umount2")
    os.chdir("/")


def bound_folder(folder: str, disk: int) -> None:
    """Mount a small writable folder: empty files count too, as each of them costs the system memory.

    Args:
        folder: An empty folder.
        disk: Bytes that it can hold.

    Raises:
        OSError: The system does not allow it.
    """
    _mount("tmpfs", folder, "tmpfs", _NOSUID | _NODEV | _NOEXEC, f"size={disk},nr_inodes={_FILES},mode=1777")


def _pivot(new: str, old: str) -> None:
    _check(_libc.pivot_root(new.encode(), old.encode()), "pivot_root")
    if old != new:
        os.chdir("/")
