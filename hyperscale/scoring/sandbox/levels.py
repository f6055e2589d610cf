"""The ways to run a worker, from the strongest to none, and what each needs of the system."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperscale.scoring.sandbox.view import CHILD, FOLDER, View, view

DISK = 16 << 20  # bytes of a worker's writable folder
_INSIDE = "/sandbox"
_INSTALL = "apt-get install bubblewrap (or dnf, pacman, apk)"
_ALLOW = "sysctl kernel.apparmor_restrict_unprivileged_userns=0 user.max_user_namespaces=15000"


@dataclass(frozen=True)
class Start:
    """How a worker is started: its command line and the first line it is sent."""

    command: list[str]
    setup: dict[str, Any]


def missing(level: str) -> str | None:
    """Why a level cannot even be tried here, or None."""
    if level in ("guard", "none"):
        return None if hasattr(os, "fork") else "this system cannot fork processes"
    if sys.platform != "linux":
        return f"{level} needs Linux"
    program = "bwrap" if level == "bwrap" else "unshare"
    if shutil.which(program) is None:
        return "bubblewrap is not installed" if level == "bwrap" else "unshare (util-linux) is not installed"
    return None


def advice() -> str:
    """What a user can do to get a sandbox."""
    if sys.platform != "linux":
        return "run on Linux, or choose --sandbox none to run model-written programs unprotected"
    if missing("bwrap") is None:  # it is there, so the system refuses it
        cure = f"let programs make user namespaces: {_ALLOW} (in a container, allow them where it is started)"
    else:
        cure = f"install bubblewrap: {_INSTALL}"
    return f"{cure}, or choose --sandbox none to run model-written programs unprotected"


def start(level: str, folder: str, number: int) -> Start:
    """How to start a worker at a level.

    Args:
        level: ``bwrap``, ``unshare``, ``guard`` or ``none``.
        folder: An empty folder outside; the working directory where there is no writable folder inside.
        number: Tells this process's workers apart.
    """
    inside = level in ("bwrap", "unshare")
    setup = {
        "level": level,
        "folder": FOLDER if inside else folder,
        "disk": DISK,
        "user": 0x60000000 + (os.getpid() % (1 << 22)) * 64 + number % 64,  # an id that owns nothing
        "root": None,
        "ours": [str(CHILD.parent), _INSIDE],
    }
    if not inside:
        return Start(_python(sys.executable, str(CHILD.parent)), setup)
    seen = view()
    if level == "bwrap":
        return Start(_bwrap(seen) + _python(seen.python, _INSIDE), setup)
    setup["root"] = {
        "shown": [*seen.shown, *seen.devices],
        "hidden": seen.hidden,
        "links": seen.links,
        "folder": FOLDER,
        "disk": DISK,
    }
    # Root needs no user namespace, and is better off without: the worker then leaves root for an id of its own.
    user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    spaces = ["--mount", "--pid", "--net", "--ipc", "--uts"]
    return Start(["unshare", *user, *spaces, "--fork", "--kill-child", *_python(seen.python, str(CHILD.parent))], setup)


def _python(executable: str, folder: str) -> list[str]:
    code = f"import sys; sys.path.insert(0, {folder!r}); from {CHILD.name}.main import main; main()"
    return [executable, "-B", "-S", "-s", "-P", "-c", code]


def environment() -> dict[str, str]:
    """A worker's environment.

    One hash seed for all, so that programs that lean on the order of sets repeat; one arena for all threads, which
    would otherwise reserve more address space each than a program may have.
    """
    return {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "MALLOC_ARENA_MAX": "1", "PATH": os.defpath}


def _bwrap(seen: View) -> list[str]:
    command = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    command += ["--as-pid-1", "--cap-drop", "ALL"]
    if os.getuid() == 0:
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]  # until the worker has left root
    else:
        command += ["--unshare-user"]
    # Left to itself, bubblewrap lets only root into the folders that it makes on the way to a file.
    for folder in sorted({str(up) for path in (*seen.shown, *seen.devices) for up in Path(path).parents} - {"/"}):
        command += ["--perms", "0755", "--dir", folder]
    for path in seen.shown:
        command += ["--ro-bind", path, path]
    command += ["--ro-bind", str(CHILD), f"{_INSIDE}/{CHILD.name}"]
    for path in seen.hidden:
        command += ["--tmpfs", path, "--remount-ro", path]
    for path in seen.devices:
        command += ["--dev-bind", path, path]
    for path, target in seen.links.items():
        command += ["--symlink", target, path]
    command += ["--perms", "1777", "--size", str(DISK), "--tmpfs", FOLDER, "--chdir", FOLDER, "--remount-ro", "/"]
    return [*command, "--"]


def version(level: str) -> str:
    """The version of the program that makes a level, for the record of a run."""
    if level not in ("bwrap", "unshare"):
        return level
    shown = subprocess.run([level, "--version"], capture_output=True, text=True, check=False, timeout=10).stdout
    return shown.strip() or level
