"""Refuses, inside the interpreter, everything that leaves the process: the level without namespaces.

Modules are loaded beforehand, then an audit hook refuses files, imports, processes, sockets and signals.

It keeps the programs of the built-in model, mistakes and casual mischief away from the user's machine. It is no
boundary against someone who knows the interpreter; for other models' programs there are the namespaces.
"""

import importlib
import sys

# What a solution may import; anything else would have to be loaded from disk, which the hook refuses.
_MODULES = (
    "array",
    "bisect",
    "cmath",
    "collections",
    "collections.abc",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "heapq",
    "itertools",
    "json",
    "math",
    "operator",
    "random",
    "re",
    "statistics",
    "string",
    "textwrap",
    "time",
    "typing",
)
_REFUSED = (
    "open",
    "import",
    "os.",
    "subprocess.",
    "socket.",
    "ctypes.",
    "shutil.",
    "pty.",
    "mmap.",
    "signal.",
    "fcntl.",
    "tempfile.",
    "syslog.",
    "resource.",
    "gc.",
)


def load_modules() -> None:
    """Import what solutions may use, so that they find it loaded."""
    for name in _MODULES:
        importlib.import_module(name)


def refuse_events() -> None:
    """Refuse, for good, the interpreter's audit events that reach outside the process."""
    sys.addaudithook(_hook)


def _hook(event: str, _arguments: object) -> None:
    if event.startswith(_REFUSED):
        raise PermissionError(f"{event} is not available to graded programs")
