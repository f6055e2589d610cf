"""Builds the command line that starts a worker at a level, and says what the level lacks on this system.

``bwrap`` and ``unshare`` show the same files (`hyperscale.scoring.sandbox.view`): bubblewrap gets them as options,
for ``unshare`` the worker mounts them itself once it has its namespaces (`child.root`).
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperscale.scoring.sandbox.view import CHILD, FOLDER, View, find_view

LEVELS = ("bwrap", "unshare", "guard", "none")  # from the strongest to none
DISK = 16 << 20  # bytes of a worker's writable folder
_INSIDE = "/sandbox"  # where the worker's own code stands inside bubblewrap
_INSTALL = "apt-get install bubblewrap (or dnf, pacman, apk)"
_ALLOW = "sysctl kernel.apparmor_restrict_unprivileged_userns=0 user.max_user_namespaces=15000"


@dataclass(frozen=True)
class WorkerCommand:
    """How a worker is started.

    Attributes:
        command: Its command line.
        setup: The first line it is sent, as JSON: where to go and what to give up, see `child.main`.
    """

    command: list[str]
    setup: dict[str, Any]


def missing_requirement(level: str) -> str | None:
    """Why a level cannot even be tried here, or None."""
    if level in ("guard", "none"):
        if level == "guard" and sys.platform != "linux":
            return "guard needs Linux"
        return None if hasattr(os, "fork") else "this system cannot fork processes"
    if sys.platform != "linux":
        return f"{level} needs Linux"
    program = "bwrap" if level == "bwrap" else "unshare"
    if shutil.which(program) is None:
        return "bubblewrap is not installed" if level == "bwrap" else "unshare (util-linux) is not installed"
    return None


def advice() -> str:
    """How a user can get a sandbox here: the end of an error message."""
    if sys.platform != "linux":
        return "run on Linux, or choose --sandbox none to run model-written programs unprotected"
    if missing_requirement("bwrap") is None:  # it is there, so the system refuses it
        cure = f"let programs make user namespaces: {_ALLOW} (in a container, allow them where it is started)"
    else:
        cure = f"install bubblewrap: {_INSTALL}"
    return f"{cure}, or choose --sandbox none to run model-written programs unprotected"


def worker_command(level: str, folder: str, number: int) -> WorkerCommand:
    """The command that starts a worker at a level.

    Args:
        level: ``bwrap``, ``unshare``, ``guard`` or ``none``.
        folder: An empty folder outside; the working directory where there is no writable folder inside.
        number: Tells this process's workers apart.
    """
    namespaces = level in ("bwrap", "unshare")
    setup = {
        "level": level,
        "folder": FOLDER if namespaces else folder,
        "disk": DISK,
        # A user id that owns no file, and another one for each worker, as the system counts processes per user. A
        # process id has at most 22 bits on Linux.
        "user": 0x60000000 + (os.getpid() % (1 << 22)) * 64 + number % 64,
        "root": None,
        "ours": [str(CHILD.parent), _INSIDE],  # taken off the import path before a program runs
    }
    if not namespaces:
        return WorkerCommand(_python(sys.executable, str(CHILD.parent)), setup)
    view = find_view()
    if level == "bwrap":
        return WorkerCommand(_bwrap(view) + _python(view.python, _INSIDE), setup)
    setup["root"] = {
        "shown": [*view.paths, *view.devices],
        "hidden": view.hidden,
        "links": view.links,
        "folder": FOLDER,
        "disk": DISK,
    }
    # Root needs no user namespace, and is better off without: the worker then leaves root for an id of its own.
    user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    namespace_options = ["--mount", "--pid", "--net", "--ipc", "--uts"]
    # A new process namespace begins with the next child, hence --fork; --kill-child ends it with unshare itself.
    unshare = ["unshare", *user, *namespace_options, "--fork", "--kill-child"]
    return WorkerCommand([*unshare, *_python(view.python, str(CHILD.parent))], setup)


def _python(executable: str, folder: str) -> list[str]:
    # -B writes no bytecode; -S, -s and -P keep site packages, the user's and the working directory off the path.
    code = f"import sys; sys.path.insert(0, {folder!r}); from {CHILD.name}.main import main; main()"
    return [executable, "-B", "-S", "-s", "-P", "-c", code]


def environment() -> dict[str, str]:
    """A worker's environment.

    One hash seed for all, so that programs that lean on the order of sets repeat; one arena for all threads, which
    would otherwise reserve more address space each than a program may have.
    """
    return {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "MALLOC_ARENA_MAX": "1", "PATH": os.defpath}


def _bwrap(view: View) -> list[str]:
    # The worker is process 1 of its namespace: when it ends, the system kills every process in it.
    command = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    # Capabilities until the worker gives them up: one to bound its folder, the others to leave root.
    command += ["--as-pid-1", "--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"]
    if os.getuid() == 0:
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user"]
    # Left to itself, bubblewrap lets only root into the folders that it makes on the way to a file.
    for folder in sorted({str(up) for path in (*view.paths, *view.devices) for up in Path(path).parents} - {"/"}):
        command += ["--perms", "0755", "--dir", folder]
    for path in view.paths:
        command += ["--ro-bind", path, path]
    command += ["--ro-bind", str(CHILD), f"{_INSIDE}/{CHILD.name}"]
    for path in view.hidden:
        command += ["--tmpfs", path, "--remount-ro", path]
    for path in view.devices:
        command += ["--dev-bind", path, path]
    for path, target in view.links.items():
        command += ["--symlink", target, path]
    command += ["--perms", "1777", "--size", str(DISK), "--tmpfs", FOLDER, "--chdir", FOLDER, "--remount-ro", "/"]
    return [*command, "--"]
