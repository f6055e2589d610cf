"""Processes: made, signalled, traced, left behind."""

# ruff: noqa: E501  (programs in strings)

import os

from hostile.base import case, refused


@case("fork bomb", """
def f(x):
    import time
    made = 0
    for _ in range(50):
        try: pid = os.fork()
        except BaseException: continue
        if pid == 0: time.sleep(3); os._exit(0)
        made += 1
    return made
""")  # fmt: skip
def _(outcome, world):
    assert outcome.status != "ok" or outcome.output == 0, outcome


@case("starts commands", """
def f(x):
    import subprocess
    return tried(lambda: subprocess.run(["/bin/sh", "-c", "true"]), lambda: os.execv(sys.executable, ["python", "-c", "0"]),
        lambda: os.posix_spawn("/bin/true", ["true"], {}), lambda: os.spawnv(os.P_WAIT, "/bin/true", ["true"]) == 0 or 1/0)
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("runs a shell line", "def f(x): return os.system('touch @FOLDER@/mark; kill -9 @VICTIM@')")
def _(outcome, world):
    assert not (world.folder / "mark").exists()
    assert not (outcome.status == "ok" and outcome.output == 0)


@case("makes processes by system calls", """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def f(x):
    arm = os.uname().machine == "aarch64"
    def go(*arguments):
        made = libc.syscall(*arguments)
        if made == 0: os._exit(0)
        if made < 0: raise OSError(ctypes.get_errno())
        return made
    how = (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17)
    arguments = (ctypes.c_char_p * 2)(b"true", None)
    return tried(lambda: go(220 if arm else 56, 17, 0, 0, 0, 0), lambda: go(435, how, 88), lambda: go(220 if arm else 57, 17, 0, 0, 0, 0),
        lambda: go(221 if arm else 59, b"/bin/true", arguments, None), lambda: go(281 if arm else 322, -100, b"/bin/true", arguments, None, 0),
        lambda: go(97 if arm else 272, 0x10000000), lambda: go(268 if arm else 308, 0, 0))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("thread bomb", """
def f(x):
    import threading, time
    made = 0
    for _ in range(2000):
        try: threading.Thread(target=time.sleep, args=(3,), daemon=True).start()
        except RuntimeError: break
        made += 1
    return made
""")  # fmt: skip
def _(outcome, world):
    assert outcome.status != "ok" or outcome.output < 512, outcome


@case("kills its parent", """
import signal
def f(x):
    return tried(*[lambda s=s: os.kill(os.getppid(), s) for s in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT)])
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case(
    "kills everybody",
    "def f(x): return tried(lambda: os.kill(-1, 9), lambda: os.kill(0, 9), lambda: os.killpg(0, 9))",
    none=False,
)
def _(outcome, world):
    refused(outcome, world)
    os.kill(world.victim, 0)


@case(
    "kills a process of the user by number",
    "def f(x): return tried(lambda: os.kill(@VICTIM@, 9), lambda: os.kill(@TEST@, 9))",
)
def _(outcome, world):
    refused(outcome, world)
    os.kill(world.victim, 0)


@case("signals by other calls", """
def f(x):
    import fcntl, ctypes, signal
    libc = ctypes.CDLL(None, use_errno=True)
    def call(number, *arguments):
        if libc.syscall(number, *arguments) != 0: raise OSError(ctypes.get_errno())
        return "done"
    read, write = os.pipe()
    return tried(lambda: fcntl.fcntl(read, fcntl.F_SETOWN, os.getppid()), lambda: signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9),
        lambda: call(200, os.getppid(), 9), lambda: call(129, os.getppid(), 9, None))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("traces its parent", """
def f(x):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    def trace(kind, pid):
        if libc.ptrace(kind, pid, None, None) != 0: raise OSError(ctypes.get_errno())
        return "attached"
    return tried(*[lambda p=p, k=k: trace(k, p) for p in (os.getppid(), 1, @VICTIM@) for k in (16, 0x4206)])
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("reads its parent's memory by process_vm_readv", """
def f(x):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(64)
    class Piece(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
    here, there = Piece(ctypes.addressof(buffer), 64), Piece(id(f), 64)
    def go(pid):
        if libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) < 0: raise OSError(ctypes.get_errno())
        return "read"
    return tried(lambda: go(os.getppid()), lambda: go(1))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("becomes root", """
def f(x):
    return tried(lambda: os.setuid(0) or 1 / (os.getuid() - os.geteuid() + (os.getuid() == 0 and open("/etc/shadow").read() != "")),
        lambda: os.setgroups([0]), lambda: os.setresuid(1, 1, 1))
""", none=False)  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("leaves a daemon behind", """
def f(x):
    import threading, time
    def later():
        time.sleep(0.5)
        open("@FOLDER@/late", "w")
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            later()
        os._exit(0)
    return "left"
""")  # fmt: skip
def _(outcome, world):
    assert outcome.status != "ok"
    assert not (world.folder / "late").exists()


@case(
    "nices itself up",
    "def f(x): return tried(lambda: os.nice(-10), lambda: os.sched_setscheduler(0, 1, os.sched_param(1)))",
)
def _(outcome, world):
    refused(outcome, world)
