"""Keeps a graded program from other processes and, if wanted, from all files, by Landlock. Linux 5.13 and newer.

A process in a Landlock domain of its own cannot trace processes outside it or read their memory through ``/proc``,
whoever it runs as. Newer kernels also keep its signals and its abstract sockets inside. Where the kernel has no
Landlock nothing is done: the other walls (`syscalls`, namespaces) do not lean on this one.

The rights and the calls are those of ``linux/landlock.h``; the numbers are the same on every machine.
"""

import ctypes
import os
import sys

_CREATE, _RESTRICT = 444, 446
_ASK_VERSION = 1
# Rights that each version of Landlock knows, as bits from the lowest: execute, write, read, list, remove, make, …
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_MAKE_BLOCK = 1 << 11  # the right that no graded program misses: to make a block device
_SCOPED = 0b11  # abstract sockets and signals stay inside; from version 6 on
_libc = ctypes.CDLL(None)


class _Rules(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


def _version() -> int:
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc.syscall(_CREATE, None, ctypes.c_size_t(0), _ASK_VERSION)))


VERSION = _version()  # 0 where the kernel has none


def leave_the_others(files: bool) -> bool:
    """Put this process into a domain of its own, for good; returns whether the system has that.

    Args:
        files: Whether it may still use files.
    """
    if not VERSION:
        return False
    every = (1 << _FILE_RIGHTS.get(VERSION, 16)) - 1
    rules = _Rules(_MAKE_BLOCK if files else every, 0b11 if VERSION >= 4 else 0, _SCOPED if VERSION >= 6 else 0)
    size = 8 if VERSION < 4 else 16 if VERSION < 6 else 24
    made = _libc.syscall(_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    if made < 0:
        return False
    _libc.prctl(38, ctypes.c_ulong(1), 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, which the next one demands
    result = _libc.syscall(_RESTRICT, made, 0)
    os.close(made)
    return int(result) == 0
