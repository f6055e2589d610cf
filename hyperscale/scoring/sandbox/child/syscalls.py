"""Refuses the system calls that a solution has no use for, by a seccomp filter. Linux on x86-64 and arm64 only.

A second wall behind the namespaces, and the first one against fork bombs: a process may have threads, but neither make
processes nor run commands, open sockets, signal or trace others, or hold memory that no other limit counts. A refused
call fails with EPERM.

The filter is a program for the kernel's classic BPF machine: it loads a 32-bit word of ``struct seccomp_data`` (number
of the call, architecture, arguments), compares it, jumps forward, and returns a verdict. Each instruction has a code,
the numbers of instructions to skip if its test is true or false, and a value (``struct sock_filter``, 8 bytes).
"""

import ctypes
import os
import platform
import struct
import sys

# System call: its number on x86-64 and on arm64 (include/uapi/asm-generic/unistd.h); None if there is none.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "socket": (41, 198),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "personality": (135, 92),
    "setpriority": (141, 140),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
    "swapon": (167, 224),
    "reboot": (169, 142),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "acct": (163, 89),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
}
_CLONE, _CLONE3, _KILL, _TGKILL, _PRLIMIT, _FCNTL, _PRCTL = (
    (56, 220),
    (435, 435),
    (62, 129),
    (234, 131),
    (302, 261),
    (72, 25),
    (157, 167),
)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*
_THREAD = 0x10000  # CLONE_THREAD
_OWNERS = (8, 15)  # F_SETOWN, F_SETOWN_EX: whom a descriptor signals
# Codes of BPF instructions (linux/bpf_common.h): ld abs, jeq, jge, jset, ret.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# What a filter returns (linux/seccomp.h): SECCOMP_RET_ALLOW, and SECCOMP_RET_ERRNO with the error's number.
_ALLOW, _EPERM, _ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data


def _filter_code(own: int) -> bytes | None:
    """The filter of process ``own``, an array of struct sock_filter; None on machines of other kinds."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES or struct.calcsize("P") != 8:
        return None
    column, arch = _MACHINES[platform.machine()]

    def step(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
        return struct.pack("HBBI", code, true, false, value)

    def argument(index: int) -> bytes:
        return step(_LOAD, _ARGUMENTS + 8 * index)

    allow, refuse = step(_RETURN, _ALLOW), step(_RETURN, _EPERM)
    # Calls that are allowed with some arguments only: to signal oneself, to limit oneself (0 is oneself too), to use
    # fcntl but for choosing whom a descriptor signals.
    only_self = argument(0) + step(_EQUAL, own, 0, 1) + allow + refuse
    self_or_zero = argument(0) + step(_EQUAL, own, 1, 0) + step(_EQUAL, 0, 0, 1) + allow + refuse
    not_owners = argument(1) + step(_EQUAL, _OWNERS[0], 2, 0) + step(_EQUAL, _OWNERS[1], 1, 0) + allow + refuse
    rules = [
        (_CLONE[column], argument(0) + step(_ANY_BIT, _THREAD, 0, 1) + allow + refuse),
        (_CLONE3[column], step(_RETURN, _ENOSYS)),  # its flags are behind a pointer; libraries fall back to clone
        (_KILL[column], only_self),
        (_TGKILL[column], only_self),
        (_PRLIMIT[column], self_or_zero),
        (_FCNTL[column], not_owners),
        (_PRCTL[column], argument(0) + step(_EQUAL, 1, 0, 1) + refuse + allow),  # PR_SET_PDEATHSIG
    ]
    rules += [(number, refuse) for numbers in _REFUSED.values() if (number := numbers[column]) is not None]
    # A call of another architecture's numbering would slip past the numbers below, so it is refused first.
    code = step(_LOAD, _ARCH) + step(_EQUAL, arch, 1, 0) + refuse + step(_LOAD, _NUMBER)
    code += step(_AT_LEAST, 0x40000000, 0, 1) + refuse  # the x32 numbers
    # Then one rule after the other: where the number is not the rule's, its body is skipped.
    for number, body in rules:
        code += step(_EQUAL, number, 0, len(body) // 8) + body
    return code + allow


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


# The filter names the process that it is for, which is known only after the fork. So it is built once, before, for a
# number that no process has, and the fork only replaces that number.
_STAND_IN = 0x3A5B7C1D
_TEMPLATE = _filter_code(_STAND_IN)
_libc = ctypes.CDLL(None)


def refuse_system_calls() -> bool:
    """Put the filter in force for this process, for good; returns whether the system accepted it."""
    if _TEMPLATE is None:
        return False
    code = _TEMPLATE.replace(struct.pack("I", _STAND_IN), struct.pack("I", os.getpid()))
    _libc.prctl(38, ctypes.c_ulong(1), 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, which the next one demands
    program = _Filter(len(code) // 8, code)
    return int(_libc.prctl(22, ctypes.c_ulong(2), ctypes.byref(program), 0, 0)) == 0  # PR_SET_SECCOMP, filter
