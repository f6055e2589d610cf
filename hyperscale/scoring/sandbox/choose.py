"""Chooses where model-written programs run: the strongest level that works here, or the one the user asked for."""

import contextlib
import functools
import sys
from dataclasses import dataclass
from typing import Literal, get_args

from hyperscale.errors import ConfigError, SandboxError
from hyperscale.scoring.sandbox import levels
from hyperscale.scoring.sandbox.program import Program
from hyperscale.scoring.sandbox.worker import Worker, WorkerDiedError

Choice = Literal["auto", "bwrap", "unshare", "none"]
STRONG = ("bwrap", "unshare")
SUMMARIES = {
    "bwrap": "namespaces by bubblewrap: no network, no files, no other processes",
    "unshare": "namespaces by util-linux's unshare: no network, no files, no other processes",
    "guard": "resource limits and refusals inside the interpreter; only for the built-in tasks",
    "none": "resource limits only; programs see what you see",
}
_PROBE = Program("import os\ndef f(): return [os.path.exists(p) for p in ('/etc/passwd', '/proc/1', '/home')]", ((),))


@dataclass(frozen=True)
class Sandbox:
    """A level that works here.

    Attributes:
        level: ``bwrap``, ``unshare``, ``guard`` or ``none``.
        note: What the user should be told once; empty if there is nothing to tell.
    """

    level: str
    note: str = ""


def choose(asked: str = "auto", trusted: bool = False) -> Sandbox:
    """The level to run at.

    Args:
        asked: ``auto``, ``bwrap``, ``unshare``, ``none``; ``guard`` counts as asked for by a program, not a user.
        trusted: Whether the programs answer the built-in tasks alone, for which ``guard`` is enough where there is no
            sandbox.

    Raises:
        SandboxError: The level asked for does not work here, or none does; the message has the reasons and the cure.
        ConfigError: There is no such level.
    """
    if asked not in (*get_args(Choice), "guard"):
        raise ConfigError(f"unknown sandbox {asked!r}; known: {', '.join(get_args(Choice))}")
    if asked == "none":
        _must(asked)
        return Sandbox(asked, "no sandbox: programs written by the model can read your files and use your network")
    if asked != "auto":
        _must(asked)
        return Sandbox(asked)
    reasons = []
    for level in STRONG:
        reason = broken(level)
        if reason is None:
            return Sandbox(level)
        reasons.append(f"{level}: {reason}")
    why = "; ".join(reasons)
    if trusted and broken("guard") is None:
        return Sandbox(
            "guard",
            f"programs of the built-in tasks run under resource limits and refusals only (no sandbox: {why})",
        )
    raise SandboxError(f"no sandbox for programs written by the model ({why}): {levels.advice()}")


def _must(level: str) -> None:
    reason = broken(level)
    if reason is not None:
        raise SandboxError(f"sandbox {level} does not work here ({reason}): {levels.advice()}")


@functools.cache
def broken(level: str) -> str | None:
    """Why a level does not work here, or None; found out by running a program in it, once per process."""
    reason = levels.missing(level)
    if reason is not None:
        return reason
    try:
        worker = Worker(level)
    except (SandboxError, OSError) as error:
        return " ".join(str(error).split())
    with contextlib.closing(worker):
        try:
            worker.send(_PROBE)
            status, text = worker.answer(_PROBE.limits.wall_seconds)
        except WorkerDiedError:
            return "its worker does not answer"
    if level in STRONG and text != "[false, false, false]":
        return f"it does not hide the system's files ({status})"
    return None


@functools.cache
def tell(note: str) -> None:
    """Write a line to standard error, once per process."""
    if note:
        sys.stderr.write(f"note: {note}\n")
