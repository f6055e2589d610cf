"""Signals to others, by whatever makes the kernel send them."""

# ruff: noqa: E501  (programs in strings)

import os

from hostile.base import case, refused

_CALL = """
import ctypes, fcntl, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    result = libc.syscall(name, *arguments) if isinstance(name, int) else getattr(libc, name)(*arguments)
    if result < 0: raise OSError(ctypes.get_errno())
    return result
def channels():
    yield os.pipe()
    yield [s.detach() for s in socket.socketpair()]
"""


def lives(outcome, world):
    os.kill(world.victim, 0)
    assert world.victim_runs(), "it has been signalled"


@case("makes a channel signal another process", _CALL + """
def f(x):
    done = []
    for victim in (@VICTIM@, os.getppid(), -@VICTIM@):
        for read, write in channels():
            def own(): return call("fcntl", read, fcntl.F_SETOWN, victim)
            def own_ex(): return call("fcntl", read, 15, struct.pack("ii", 1, victim))
            def ioctl_own(): return call("ioctl", read, 0x8901, ctypes.byref(ctypes.c_int(victim)))
            def ioctl_group(): return call("ioctl", read, 0x8902, ctypes.byref(ctypes.c_int(victim)))
            def choose(): return call("fcntl", read, 10, 9)
            def flag(): return call("fcntl", read, fcntl.F_SETFL, 0x2000)
            def ioctl_flag(): return call("ioctl", read, 0x5452, ctypes.byref(ctypes.c_int(1)))
            done += tried(own, own_ex, ioctl_own, ioctl_group, choose, flag, ioctl_flag)
            try: os.write(write, b"x")
            except OSError: pass
    return done
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
    lives(outcome, world)


@case("makes a file signal another process", _CALL + """
def f(x):
    number = os.open("lease", os.O_RDWR | os.O_CREAT)
    folder = os.open(".", os.O_RDONLY)
    return tried(lambda: call("fcntl", number, 1024, 1), lambda: call("fcntl", folder, 1026, 0x8000003F),
        lambda: call("fcntl", number, fcntl.F_SETOWN, @VICTIM@), lambda: call("ioctl", number, 0x8901, ctypes.byref(ctypes.c_int(@VICTIM@))))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
    lives(outcome, world)


@case("signals by every call there is", _CALL + """
def f(x):
    arm = os.uname().machine == "aarch64"
    n = lambda x86, other: other if arm else x86
    info = ctypes.create_string_buffer(128)
    out = []
    for pid in (@VICTIM@, @TEST@, os.getppid(), -@VICTIM@):
        out += tried(lambda: call("kill", pid, 15), lambda: call(n(200, 130), pid, 15), lambda: call(n(234, 131), pid, pid, 15),
            lambda: call(n(129, 138), pid, 15, info), lambda: call(n(297, 240), pid, pid, 15, info), lambda: call(434, pid, 0),
            lambda: call(n(302, 261), pid, 0, ctypes.create_string_buffer(16), None), lambda: call(n(256, 238), pid, 0, None, None),
            lambda: call(n(141, 140), 0, pid, 19), lambda: call(n(142, 118), pid, info), lambda: call(n(203, 122), pid, 8, info),
            lambda: call(n(251, 30), 1, pid, 0), lambda: call(n(109, 154), pid, 0))
    return out
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
    lives(outcome, world)


@case("asks to be told of, or to outlive, its parent", _CALL + """
def f(x):
    options = [(1, 0), (36, 1), (4, 1), (0x59616D61, -1), (62, 1, os.getppid(), 0, 0), (35, 1, 0, 0, 0)]
    return tried(*[lambda o=o: call("prctl", *o) for o in options], lambda: os.setsid(), lambda: os.setpgid(0, 0))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
