"""Refuses every system call that a solution has no use for, by a seccomp filter. Linux on x86-64 and arm64 only.

A second wall behind the namespaces, the whole wall of the level ``guard``, and the first one against fork bombs: a
process may have threads, but neither make processes nor run commands, open sockets, signal or trace others, or hold
memory that no other limit counts. What is not listed in `syscall_numbers` is refused: with EPERM, or, where the call is
so new that libraries must do without it, with ENOSYS.

The filter is a program for the kernel's classic BPF machine: it loads a 32-bit word of ``struct seccomp_data`` (number
of the call, architecture, arguments), compares it, jumps forward, and returns a verdict. Each instruction has a code,
the numbers of instructions to skip if its test is true or false, and a value (``struct sock_filter``, 8 bytes).
"""

import ctypes
import os
import platform
import struct
import sys

from .syscall_numbers import CHECKED, FILES, PLAIN

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the numbers, AUDIT_ARCH_*
_FIRST_NEW = 424  # calls from this number on have one number everywhere, and came after Linux 5.0
_X32 = 0x40000000  # added to the numbers of x86-64's third interface
# Arguments that checked calls may have. All are 32-bit words to the kernel too.
_IOCTL = (
    *(0x5401, 0x5413),  # TCGETS and TIOCGWINSZ: whether it is a terminal, and how large
    *(0x541B, 0x5421),  # FIONREAD, FIONBIO
    *(0x5450, 0x5451),  # FIONCLEX, FIOCLEX
)  # so not FIOSETOWN, SIOCSPGRP, FIOASYNC, which signal others
_FCNTL = (
    *(0, 1, 2, 3),  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL; F_SETFL is looked at below
    *(5, 6, 7, 36, 37, 38),  # locks: F_GETLK, F_SETLK, F_SETLKW, and those of open files
    *(1030, 1032, 1034),  # F_DUPFD_CLOEXEC, F_GETPIPE_SZ, F_GET_SEALS
)  # so not F_SETOWN, F_SETOWN_EX, F_SETSIG, F_SETLEASE, F_NOTIFY, which signal others
_F_SETFL, _O_ASYNC = 4, 0x2000
_PRCTL = (
    *(3, 15, 16, 21, 23, 27, 30, 39),  # names of threads, and what only tells: PR_GET_DUMPABLE, PR_CAPBSET_READ, …
    0x53564D41,  # PR_SET_VMA: the allocator names its memory
)
_THREAD = 0x10000  # CLONE_THREAD
_NAMESPACES = 0x7E020000  # CLONE_NEW*
_STREAM, _TYPE = 1, 0xF  # SOCK_STREAM, and the bits of a socket's type; a pair of datagram sockets could send anywhere
# Codes of BPF instructions (linux/bpf_common.h): ld abs, and k, ja, jeq, jge, jset, ret.
_LOAD, _AND, _JUMP, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x35, 0x45, 0x06
# What a filter returns (linux/seccomp.h): SECCOMP_RET_ALLOW, and SECCOMP_RET_ERRNO with the error's number.
_ALLOW, _EPERM, _ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data


def _step(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("HBBI", code, true, false, value)


_PASS, _REFUSE = _step(_RETURN, _ALLOW), _step(_RETURN, _EPERM)


def _argument(index: int, high: bool = False) -> bytes:
    return _step(_LOAD, _ARGUMENTS + 8 * index + 4 * high)


def _one_of(values: tuple[int, ...]) -> bytes:
    """Pass if the word loaded is one of the values; refuse otherwise."""
    tests = b"".join(_step(_EQUAL, value, len(values) - place, 0) for place, value in enumerate(values))
    return tests + _REFUSE + _PASS


def _bodies(own: int) -> dict[str, bytes]:
    """What is done with each call that depends on its arguments, in the process ``own``."""
    return {
        "ioctl": _argument(1) + _one_of(_IOCTL),
        # F_SETFL first: with it, only O_ASYNC is refused.
        "fcntl": _argument(1)
        + _step(_EQUAL, _F_SETFL, 0, 4)
        + _argument(2)
        + _step(_ANY_BIT, _O_ASYNC, 0, 1)
        + _REFUSE
        + _PASS
        + _one_of(_FCNTL),
        "kill": _argument(0) + _one_of((own,)),
        "tgkill": _argument(0) + _one_of((own,)),
        "prlimit64": _argument(0) + _one_of((own, 0)),  # 0 is oneself too
        "prctl": _argument(0) + _one_of(_PRCTL),
        # Threads, in no new namespace; processes have no CLONE_THREAD.
        "clone": _argument(0) + _step(_ANY_BIT, _THREAD, 0, 2) + _step(_ANY_BIT, _NAMESPACES, 1, 0) + _PASS + _REFUSE,
        "socketpair": _argument(1) + _step(_AND, _TYPE) + _one_of((_STREAM,)),
        # To nobody but the other end: the address is null, in both halves of the pointer.
        "sendto": _argument(4)
        + _step(_EQUAL, 0, 0, 2)
        + _argument(4, high=True)
        + _step(_EQUAL, 0, 1, 0)
        + _REFUSE
        + _PASS,
    }


def _filter_code(own: int, files: bool) -> bytes | None:
    """The filter of process ``own``, an array of struct sock_filter; None on machines of other kinds.

    Args:
        own: The process.
        files: Whether it may use files and threads.
    """
    if sys.platform != "linux" or platform.machine() not in _MACHINES or struct.calcsize("P") != 8:
        return None
    column, arch = _MACHINES[platform.machine()]
    bodies = _bodies(own)
    wanted = CHECKED if files else {name: CHECKED[name] for name in ("ioctl", "fcntl", "kill", "tgkill", "prlimit64")}
    rules = {numbers[column]: _PASS for numbers in ({**PLAIN, **FILES} if files else PLAIN).values()}
    rules |= {numbers[column]: bodies[name] for name, numbers in wanted.items()}
    # A call of another architecture's numbering would slip past the numbers below, so it is refused first.
    code = _step(_LOAD, _ARCH) + _step(_EQUAL, arch, 1, 0) + _REFUSE + _step(_LOAD, _NUMBER)
    return code + _choose(_ranges({number: body for number, body in rules.items() if number is not None}))


def _ranges(rules: dict[int, bytes]) -> list[tuple[int, bytes]]:
    """First numbers of ranges of calls, from 0 up without gaps, with what is done in each."""
    last = max(rules) + 1
    ends = {last, _FIRST_NEW, _X32}
    ranges: list[tuple[int, bytes]] = []
    for number in sorted({*range(last), *ends}):
        otherwise = _step(_RETURN, _ENOSYS) if _FIRST_NEW <= number < _X32 else _REFUSE
        body = rules.get(number, otherwise)
        if not ranges or ranges[-1][1] != body:
            ranges.append((number, body))
    return ranges


def _choose(ranges: list[tuple[int, bytes]]) -> bytes:
    """A search for the range that the call's number is in, by halves.

    The kernel runs the filter for every number when it is put in force, which each test does: a list would cost it half
    a millisecond.
    """
    if len(ranges) == 1:
        return ranges[0][1]
    half = len(ranges) // 2
    low, high = _choose(ranges[:half]), _choose(ranges[half:])
    # From the half on, the next instruction jumps over the lower half; below, it is skipped.
    return _step(_AT_LEAST, ranges[half][0], 0, 1) + _step(_JUMP, len(low) // 8) + low + high


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


# A filter names the process that it is for, which is known only after the fork. So it is built once, before, for a
# number that no process has, and the fork only replaces that number.
_STAND_IN = 0x3A5B7C1D
_TEMPLATES = {files: _filter_code(_STAND_IN, files) for files in (True, False)}
_libc = ctypes.CDLL(None)


def refuse_system_calls(files: bool) -> bool:
    """Put the filter in force for this process, for good; returns whether the system accepted it.

    Args:
        files: Whether the process may still use files and threads.
    """
    template = _TEMPLATES[files]
    if template is None:
        return False
    code = template.replace(struct.pack("I", _STAND_IN), struct.pack("I", os.getpid()))
    _libc.prctl(38, ctypes.c_ulong(1), 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, which the next one demands
    program = _Filter(len(code) // 8, code)
    return int(_libc.prctl(22, ctypes.c_ulong(2), ctypes.byref(program), 0, 0)) == 0  # PR_SET_SECCOMP, filter
