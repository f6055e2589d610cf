"""Chooses the level at which model-written programs run: the strongest that works here, or the one requested."""

import contextlib
import functools
import sys
from dataclasses import dataclass
from typing import Literal, get_args

from hyperscale.errors import ConfigError, SandboxError
from hyperscale.scoring.sandbox import levels
from hyperscale.scoring.sandbox.program import Program
from hyperscale.scoring.sandbox.worker import OpenProgram, SandboxWorker, WorkerDiedError

Choice = Literal["auto", "bwrap", "unshare", "none"]
STRONG = ("bwrap", "unshare")
# Tries a level from inside: but for ``none``, no program may find these paths.
_PROBE = Program("import os\ndef f(): return [os.path.exists(p) for p in ('/etc/passwd', '/proc/1', '/home')]", ((),))

_UNPROTECTED = (
    "no sandbox: programs written by the model can read your files, the benchmark's answers among them, and change them"
)


@dataclass(frozen=True)
class Sandbox:
    """A level that works here.

    Attributes:
        level: ``bwrap``, ``unshare``, ``guard`` or ``none``.
        note: A warning to print once; empty if there is none.
    """

    level: str
    note: str = ""


def choose_level(requested: str = "auto", trusted: bool = False) -> Sandbox:
    """The level to run at.

    Args:
        requested: ``auto``, ``bwrap``, ``unshare``, ``none``, or ``guard``, which only code may request, not a user.
        trusted: Whether the programs are the built-in model's, for its own tasks: for them ``guard`` is enough where
            there are no namespaces.

    Raises:
        SandboxError: The level requested does not work here, or none does; the message has the reasons and the cure.
        ConfigError: There is no such level.
    """
    if requested not in (*get_args(Choice), "guard"):
        raise ConfigError(f"unknown sandbox {requested!r}; known: {', '.join(get_args(Choice))}")
    if requested == "none":
        _require_level(requested)
        network = "; they can use your network too" if find_fault("guard") else ""  # the filter of calls refuses it
        return Sandbox(requested, _UNPROTECTED + network)
    if requested != "auto":
        _require_level(requested)
        return Sandbox(requested)
    faults = []
    for level in STRONG:
        fault = find_fault(level)
        if fault is None:
            return Sandbox(level)
        faults.append(f"{level}: {fault}")
    reasons = "; ".join(faults)
    if trusted and find_fault("guard") is None:
        return Sandbox(
            "guard",
            f"the built-in model's programs run under resource limits and refusals only (no sandbox: {reasons})",
        )
    raise SandboxError(f"no sandbox for programs written by the model ({reasons}): {levels.advice()}")


def _require_level(level: str) -> None:
    fault = find_fault(level)
    if fault is not None:
        raise SandboxError(f"sandbox {level} does not work here ({fault}): {levels.advice()}")


@functools.cache
def find_fault(level: str) -> str | None:
    """Why a level does not work here, or None; tried by running a program in it, once per process."""
    requirement = levels.missing_requirement(level)
    if requirement is not None:
        return requirement
    try:
        worker = SandboxWorker(level)
    except (SandboxError, OSError) as error:
        return " ".join(str(error).split())
    with contextlib.closing(worker), contextlib.closing(OpenProgram(_PROBE)) as opened:
        try:
            status, text = worker.run_test(opened, 0)
        except WorkerDiedError:
            return "its worker does not answer"
    if level == "guard" and status != "ok":
        return "the system takes no filter of system calls"
    if level != "none" and (status, text) != ("ok", b"[false, false, false]"):
        return f"it does not hide the system's files ({status})"
    return None


@functools.cache
def print_note_once(note: str) -> None:
    """Write a note to standard error; the cache makes it once per process."""
    if note:
        sys.stderr.write(f"note: {note}\n")
