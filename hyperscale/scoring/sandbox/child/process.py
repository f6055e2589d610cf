"""Takes rights from this process before it runs what a model wrote: resource limits, privileges, tracing."""

import contextlib
import ctypes
import math
import os
import resource
import signal
import sys

_NO_NEW_PRIVS, _DUMPABLE, _DROP_BOUNDING, _DEATH_SIGNAL = 38, 4, 24, 1  # prctl's option numbers
_HEADER = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
_libc = ctypes.CDLL(None)
_NOBODY = 65534
DESCRIPTORS = 32
STACK = 1 << 28  # bytes of a stack
THREADS = 64  # processes and threads of one worker, where the system counts them for it alone


def prctl(option: int, value: int) -> None:
    """Linux's prctl; does nothing elsewhere."""
    if sys.platform == "linux":
        _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def forbid_tracing() -> None:
    """Let no process of the same user trace this one or read its memory."""
    prctl(_DUMPABLE, 0)


def die_with_parent(parent: int) -> None:
    """Be killed when the process that forked this one ends; ends at once if it already has."""
    prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def drop_capabilities() -> None:
    """Give up every capability, for good, whatever is executed later."""
    prctl(_NO_NEW_PRIVS, 1)  # no set-user-id program can give them back
    if sys.platform == "linux":
        # First the bounding set, which caps what a process can ever gain (dropping from it is itself privileged), then
        # the effective, permitted and inheritable sets: two 32-bit words each, all zero.
        for number in range(64):
            prctl(_DROP_BOUNDING, number)
        _libc.capset(_HEADER, (ctypes.c_uint32 * 6)())


def become_user(user: int) -> None:
    """Stop being root: take a user id that owns nothing, or ``nobody`` where that id is not mapped."""
    if os.getuid() != 0:
        return
    for number in (user, _NOBODY):
        with contextlib.suppress(OSError):
            os.setgroups([])  # groups first: a process that is no longer root cannot leave them
            os.setresgid(number, number, number)
            os.setresuid(number, number, number)
            return


def set_common_limits() -> None:
    """Set the limits that are the same for all tests, in the process that they are forked from."""
    _limit("RLIMIT_CORE", 0)
    _limit("RLIMIT_MEMLOCK", 0)
    _limit("RLIMIT_SIGPENDING", 64)
    _limit("RLIMIT_MSGQUEUE", 0)


def set_limits(seconds: float, memory: int, disk: int, processes: int | None) -> None:
    """Set the resource limits of this process.

    Args:
        seconds: CPU time.
        memory: Address space in bytes.
        disk: Size in bytes of the largest file.
        processes: Of this user; None leaves it as it is.
    """
    # Whole seconds only: a signal at the first number, the kill at the second. The grader compares the exact time.
    cpu = max(1, math.ceil(seconds))
    _limit("RLIMIT_CPU", cpu, cpu + 1)
    _limit("RLIMIT_AS", memory)
    # Recursion through C code, as under lru_cache, needs more than the usual 8 MiB. The system leaves at least 128 MiB.
    with contextlib.suppress(ValueError, OSError):
        most = resource.getrlimit(resource.RLIMIT_STACK)[1]
        resource.setrlimit(resource.RLIMIT_STACK, (STACK if most == resource.RLIM_INFINITY else most, most))
    _limit("RLIMIT_FSIZE", disk)
    _limit("RLIMIT_NOFILE", DESCRIPTORS)
    if processes is not None:
        _limit("RLIMIT_NPROC", processes)


def _limit(kind: str, soft: int, hard: int | None = None) -> None:
    if hasattr(resource, kind):  # which limits exist depends on the system
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, kind), (soft, soft if hard is None else hard))
