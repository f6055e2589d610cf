"""Finds the files that a sandboxed program may see: the interpreter and its libraries, and nothing of the user's."""

import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

FOLDER = "/tmp"  # the writable folder inside
_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/nix/store")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
CHILD = Path(__file__).with_name("child")


@dataclass(frozen=True)
class View:
    """Paths of the sandbox.

    Attributes:
        paths: Files and folders that are there, read-only, at the same places as outside.
        hidden: Folders inside those that appear empty.
        links: Symbolic links, path to target.
        devices: Device files.
        python: The interpreter.
    """

    paths: tuple[str, ...]
    hidden: tuple[str, ...]
    links: dict[str, str]
    devices: tuple[str, ...]
    python: str


def find_view() -> View:
    """The view for the interpreter that runs this."""
    # In a virtual environment sys.executable is a link into it; the sandbox shows the interpreter behind that link.
    python = Path(getattr(sys, "_base_executable", sys.executable) or sys.executable)
    links: dict[str, str] = {}
    folders: list[Path] = []
    # Many systems have /lib as a link to usr/lib: links stay links, so that a folder is shown once.
    for path in map(Path, _LIBRARIES):
        if path.is_symlink():
            links[str(path)] = str(path.readlink())
        elif path.is_dir():
            folders.append(path)
    standard = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    base = Path(sys.base_prefix) / "lib"  # shared libraries of interpreters that bring their own
    candidates = [*standard, *([base] if base.parts[:2] != ("/", "usr") and base.is_dir() else [])]
    candidates += [*Path(sys.base_prefix).glob("lib/libpython*"), python, python.resolve()]
    # Add what no folder holds yet; a new folder replaces those inside it, so that no path is shown twice.
    for path in candidates:
        real = path if path == python else path.resolve()
        if real.exists() and not any(real.is_relative_to(folder) for folder in folders):
            folders = [folder for folder in folders if not folder.is_relative_to(real)] + [real]
    # Packages installed beside the standard library are the user's, and solutions must run without them.
    hidden = [
        str(path)
        for path in {path for folder in {item.resolve() for item in standard} for path in _packages(folder)}
        if path.is_dir()
    ]
    devices = tuple(path for path in _DEVICES if Path(path).exists())
    return View(tuple(map(str, folders)), tuple(sorted(hidden)), links, devices, str(python))


def _packages(standard: Path) -> list[Path]:
    parents = (standard, standard.parent / "python3")
    return [parent / name for parent in parents for name in ("site-packages", "dist-packages")]
