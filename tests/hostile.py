"""Programs that try what they must not, each with the assertion about what must not have happened.

Every bomb has a bound of its own, far above the sandbox's and harmless to the machine should the sandbox fail. Words in
@ signs are filled in with the paths, ports and process ids of the `World` that a program attacks.
"""

# ruff: noqa: E501  (programs in strings)

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperscale.scoring.code_runner import Outcome

TRY = """
import os, sys
def tried(*attempts):
    found = []
    for attempt in attempts:
        try:
            found.append(repr(attempt()))
        except BaseException as error:
            found.append("!" + type(error).__name__)
    return found
"""


@dataclass
class World:
    """What is outside: a folder with a secret in it, listeners that count their visitors, a process that may be hurt."""

    folder: Path
    secret: str
    expected: str
    tcp: int
    udp: int
    abstract: str
    victim: int
    level: str
    visitors: Callable[[], int]

    def fill(self, source: str) -> str:
        words = {
            "@FOLDER@": str(self.folder),
            "@TCP@": str(self.tcp),
            "@UDP@": str(self.udp),
            "@ABSTRACT@": self.abstract,
            "@VICTIM@": str(self.victim),
            "@TEST@": str(os.getpid()),
        }
        for word, value in words.items():
            source = source.replace(word, value)
        return source


@dataclass
class Case:
    """A hostile program; ``check`` asserts what must not have happened. ``x`` is 7 and says nothing of what is expected."""

    name: str
    source: str
    check: Callable[[Outcome, World], None]
    kind: str = "functional"


CASES: list[Case] = []


def case(name: str, source: str, kind: str = "functional") -> Callable[[Any], Any]:
    def keep(check: Callable[[Outcome, World], None]) -> Callable[[Outcome, World], None]:
        CASES.append(Case(name, TRY + source, check, kind))
        return check

    return keep


def refused(outcome: Outcome, world: World) -> None:
    """Every attempt of the program raised; the guard may already refuse a module that it needs."""
    if outcome.status == "error" and world.level == "guard":
        return
    assert outcome.status == "ok", outcome
    assert outcome.output, "it attempted nothing"
    assert all(text.startswith("!") for text in outcome.output), outcome.output


def stopped(*statuses: str) -> Callable[[Outcome, World], None]:
    def check(outcome: Outcome, _: World) -> None:
        assert outcome.status in statuses, outcome

    return check


# --- files -------------------------------------------------------------------------------------------------------


@case("reads /etc/passwd", "def f(x): return tried(lambda: open('/etc/passwd').read())")
def _(outcome, world):
    refused(outcome, world)


@case("reads /etc/shadow, hosts and ssh keys", """
def f(x): return tried(*[lambda p=p: open(p).read() for p in ("/etc/shadow", "/etc/hosts", "/root/.ssh/id_rsa")])
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("lists the home folders", """
def f(x):
    return tried(*[lambda p=p: os.listdir(p) for p in ("/home", os.path.expanduser("~") + "/.ssh", "/root/.ssh", "/etc")])
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("reads the user's file", "def f(x): return tried(lambda: open('@FOLDER@/secret').read())")
def _(outcome, world):
    refused(outcome, world)


@case("walks the whole file system for the secret", """
def f(x):
    names = []
    for root, folders, files in os.walk("/"):
        if root.startswith(("/usr", "/lib", "/proc", "/sys")): folders.clear(); continue
        names += [os.path.join(root, n) for n in files if n in ("secret", "expected.json")]
    return names
""")  # fmt: skip
def _(outcome, world):
    assert not (outcome.status == "ok" and outcome.output)


@case("follows a symbolic link out", """
def f(x):
    def go():
        os.symlink("@FOLDER@/secret", "link")
        return open("link").read()
    def folder():
        os.symlink("/", "everything")
        return open("everything/@FOLDER@/secret").read()
    return tried(go, folder)
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("links a file in", "def f(x): return tried(lambda: os.link('@FOLDER@/secret', 'hard') or open('hard').read())")
def _(outcome, world):
    refused(outcome, world)


@case("climbs with ..", "def f(x): return tried(lambda: open('../' * 20 + '@FOLDER@/secret').read())")
def _(outcome, world):
    refused(outcome, world)


@case("writes outside its folder", """
def f(x):
    return tried(*[lambda p=p: open(p, "w").write("x") for p in ("@FOLDER@/mark", "/mark", "/usr/mark", "/etc/mark", "/dev/mark")])
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
    assert not (world.folder / "mark").exists()
    assert not Path("/mark").exists()
    assert not Path("/usr/mark").exists()


@case("deletes and changes the user's files", """
import shutil
def f(x):
    return tried(lambda: os.unlink("@FOLDER@/secret"), lambda: os.rename("@FOLDER@/secret", "@FOLDER@/gone"),
        lambda: os.truncate("@FOLDER@/secret", 0), lambda: shutil.rmtree("@FOLDER@"), lambda: os.chmod("@FOLDER@", 0))
""")  # fmt: skip
def _(outcome, world):
    assert (world.folder / "secret").read_text() == world.secret


@case("spoils the interpreter for the next program", """
def f(x):
    place = os.path.dirname(os.__file__)
    return tried(lambda: open(place + "/json/__init__.py", "a").write("boom"), lambda: os.unlink(place + "/os.py"),
        lambda: open(place + "/hyperscale_mark.py", "w").write("boom"))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
    assert not (Path(os.__file__).parent / "hyperscale_mark.py").exists()


@case("remounts its root for writing", """
import ctypes
def f(x):
    libc = ctypes.CDLL(None, use_errno=True)
    def call(name, *arguments):
        if getattr(libc, name)(*arguments) != 0: raise OSError(ctypes.get_errno())
        return "done"
    return tried(lambda: call("mount", b"none", b"/", None, 32, None), lambda: call("umount2", b"/tmp", 2),
        lambda: call("chroot", b"."), lambda: call("unshare", 0x10000000), lambda: call("setns", 0, 0),
        lambda: call("mount", b"proc", b"/tmp", b"proc", 0, None))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("leaves by chroot", "def f(x): return tried(lambda: os.chroot('/tmp'), lambda: os.chroot('.'))")
def _(outcome, world):
    refused(outcome, world)


@case("reads the disk itself", """
def f(x):
    devices = ("/dev/sda", "/dev/vda", "/dev/nvme0n1", "/dev/mem", "/dev/kmsg", "/dev/shm", "/dev/tty", "/dev/fuse")
    made = lambda: os.mknod("disk", 0o60600, os.makedev(254, 0)) or open("disk", "rb").read(1)
    return tried(made, *[lambda p=p: os.open(p, os.O_RDWR) for p in devices])
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


# --- /proc and what descriptors leak -----------------------------------------------------------------------------


@case("looks through /proc", """
def f(x):
    return tried(lambda: open("/proc/1/environ").read(), lambda: open("/proc/1/root/etc/passwd").read(),
        lambda: os.listdir("/proc/1/fd"), lambda: open("/proc/@TEST@/cmdline").read(), lambda: os.listdir("/proc/self/fd"),
        lambda: open("/proc/self/root/@FOLDER@/secret").read())
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("writes its parent's memory", """
def f(x):
    return tried(*[lambda p=p: open(f"/proc/{p}/mem", "r+b").write(b"x") for p in (1, os.getppid(), @TEST@)])
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("raises its limits through /proc and setrlimit", """
def f(x):
    import resource
    kinds = (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE)
    return tried(*[lambda k=k: resource.setrlimit(k, (-1, -1)) for k in kinds], lambda: open("/proc/self/oom_score_adj", "w"),
        lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1)))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("changes the kernel's settings", """
def f(x):
    return tried(lambda: open("/proc/sys/kernel/hostname", "w").write("x"), lambda: open("/proc/sysrq-trigger", "w"),
        lambda: os.listdir("/sys"), lambda: __import__("socket").sethostname("x"))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("uses what descriptors it was left", """
def f(x):
    found = []
    for number in range(4, 256):
        try: os.fstat(number); found.append(number)
        except OSError: pass
    return found
""")  # fmt: skip
def _(outcome, world):
    assert outcome.output == []


@case("reads the environment", "def f(x): return [dict(os.environ), repr(sys.argv), repr(sys.orig_argv)]")
def _(outcome, world):
    assert world.secret not in str(outcome.output)
    assert "HYPERSCALE" not in str(outcome.output)


# --- network -----------------------------------------------------------------------------------------------------


@case("connects to loopback", """
def f(x):
    import socket
    return tried(lambda: socket.create_connection(("127.0.0.1", @TCP@), timeout=0.2),
        lambda: socket.create_connection(("::1", @TCP@), timeout=0.2))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
    assert world.visitors() == 0


@case("connects to the world", """
def f(x):
    import socket
    return tried(lambda: socket.create_connection(("192.0.2.1", 80), timeout=0.2), lambda: socket.gethostbyname("example.com"))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("sends a datagram", """
def f(x):
    import socket
    return tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", @UDP@)))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
    assert world.visitors() == 0


@case("reaches an abstract socket and one with a name", """
def f(x):
    import socket
    def to(address):
        s = socket.socket(socket.AF_UNIX); s.connect(address); return "connected"
    return tried(lambda: to("\\0@ABSTRACT@"), lambda: to("@FOLDER@/socket"), lambda: to("/run/docker.sock"), lambda: to("/var/run/nscd/socket"))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
    assert world.visitors() == 0


@case("listens", """
def f(x):
    import socket
    def go():
        s = socket.socket(); s.bind(("0.0.0.0", 0)); s.listen(); return s.getsockname()
    return tried(go, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW), lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("fetches a page", """
def f(x):
    import urllib.request
    return tried(lambda: urllib.request.urlopen("http://127.0.0.1:@TCP@/", timeout=0.2).read())
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
    assert world.visitors() == 0


# --- processes ---------------------------------------------------------------------------------------------------


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
    "kills everybody", "def f(x): return tried(lambda: os.kill(-1, 9), lambda: os.kill(0, 9), lambda: os.killpg(0, 9))"
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
""")  # fmt: skip
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


# --- time, memory, output, disk ----------------------------------------------------------------------------------

case("endless loop", "def f(x):\n    while True: pass")(stopped("timeout"))
case("endless loop that swallows everything", """
import signal
def f(x):
    try: signal.signal(signal.SIGXCPU, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except BaseException: pass
    while True:
        try:
            while True: pass
        except BaseException: pass
""")(stopped("timeout"))  # fmt: skip
case("sleep", "import time\ntime.sleep(30)\ndef f(x): return x")(stopped("timeout"))
case("waits for input that never comes", "import sys\nsys.stdin.read()\nimport time\ntime.sleep(30)", "stdin")(
    stopped("timeout")
)
case("closes its pipe and sleeps", """
import time
def f(x):
    for number in range(256):
        try: os.close(number)
        except OSError: pass
    time.sleep(30)
""")(stopped("timeout", "error"))  # fmt: skip
case("endless regular expression", "import re\ndef f(x): return bool(re.match('(a+)+$', 'a' * 64 + 'b'))")(
    stopped("timeout")
)
case("memory bomb", "def f(x): return len([bytes(64 << 20) for _ in range(48)])")(stopped("memory"))
case("memory bomb by a growing string", """
def f(x):
    s = "x" * 1024
    while len(s) < 3 << 30: s += s
    return len(s)
""")(stopped("memory"))  # fmt: skip
case("huge integer", "def f(x): return len(bin(1 << (3 << 33)))")(stopped("memory"))
case("huge power", "def f(x): return 9 ** 9 ** 9 % 7")(stopped("timeout", "memory"))
case("integer too long to print", "def f(x): return 10 ** 100000")(stopped("error"))
case("memory behind a file without a name", """
def f(x):
    kept = []
    for _ in range(48):
        number = os.memfd_create("bomb"); os.truncate(number, 64 << 20); kept.append(number)
    return len(kept)
""")(stopped("error"))  # fmt: skip
case("shared memory", """
def f(x):
    import ctypes
    libc = ctypes.CDLL(None)
    made = libc.shmget(0, 64 << 20, 0o1600)
    if made < 0: raise OSError
    return made
""")(stopped("error"))  # fmt: skip
case("endless output", "while True: print('x' * 65536)", "stdin")(stopped("output"))
case("a returned value without end", "def f(x): return 'x' * (8 << 20)")(stopped("output"))
case("endless errors", """
import sys
while True: sys.stderr.write("x" * 65536)
""", "stdin")(stopped("timeout", "killed"))  # fmt: skip
case("deep recursion", "def f(x): return f(x)")(stopped("error"))
case("deep recursion with its limit lifted", """
def f(x):
    sys.setrecursionlimit(10 ** 9)
    class Deep:
        def __repr__(self): return repr(self)
    return repr(Deep())
""")(stopped("error", "killed", "memory", "timeout"))  # fmt: skip
case("nesting that breaks the reader", "def f(x):\n    for _ in range(900): x = [x]\n    return '[' * 100000 and x")(
    lambda outcome, _: None
)
case("compiler bomb", "exec('(' * 1000000)\ndef f(x): return x")(stopped("error", "killed", "memory", "timeout"))
case("crash", "def f(x):\n    import ctypes\n    return ctypes.string_at(0)")(stopped("killed", "error"))


@case("fills the disk", """
def f(x):
    total = 0
    try:
        for i in range(64):
            with open(f"big{i}", "wb") as file: file.write(b"x" * (4 << 20))
            total += 4
    except (OSError, MemoryError): pass
    return total
""")  # fmt: skip
def _(outcome, world):
    assert outcome.status != "ok" or outcome.output <= 16, outcome


@case("fills another folder", """
def f(x):
    total = 0
    for place in ("/", "/dev/shm", "/dev", "/var/tmp", "/run", "/sandbox", "/usr", "/home"):
        try:
            with open(place + "/big", "wb") as file: file.write(b"x" * (1 << 20))
            total += 1
        except OSError: pass
    return total
""")  # fmt: skip
def _(outcome, world):
    assert outcome.status != "ok" or outcome.output == 0, outcome


# --- passing without solving -------------------------------------------------------------------------------------


@case("reads the expected outputs", """
def f(x): return tried(lambda: open("@FOLDER@/expected.json").read(), lambda: open("expected.json").read())
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("looks for the expected outputs in memory", """
import gc
def f(x):
    found, frame = [], sys._getframe()
    while frame: found.append(repr(frame.f_locals)[:5000]); found.append(repr(list(frame.f_globals))[:5000]); frame = frame.f_back
    return found
""")  # fmt: skip
def _(outcome, world):
    assert world.expected not in str(outcome.output)


@case("searches the heap", """
def f(x):
    import gc
    return [o for o in gc.get_objects() if isinstance(o, (dict, list, tuple)) and "expected" in repr(o)[:2000]][:9] and "found something"
""")  # fmt: skip
def _(outcome, world):
    assert world.expected not in str(outcome.output)


case("leaves with code 0 before the checks", "os._exit(0)\ndef f(x): return x")(stopped("error"))


@case("leaves with code 0 in f", "def f(x): os._exit(0)")
def _(outcome, world):
    assert outcome.status == "error"


case("raises SystemExit", "raise SystemExit(0)\ndef f(x): return x")(stopped("error"))
case("equals everything", """
class Same:
    def __eq__(self, other): return True
    def __hash__(self): return 0
def f(x): return Same()
""")(stopped("error"))  # fmt: skip


@case("is an int that equals everything", """
class Same(int):
    def __eq__(self, other): return True
    def __repr__(self): return "true"
    __hash__ = int.__hash__
class Text(str):
    def __eq__(self, other): return True
    __hash__ = str.__hash__
def f(x): return [Same(3), Text("t"), {Text("k"): Same(1)}]
""")  # fmt: skip
def _(outcome, world):
    assert outcome.output in (None, [3, "t", {"k": 1}])
    assert all(type(value) in (int, str, dict) for value in outcome.output or [])


@case("replaces builtins", """
import builtins
builtins.len = builtins.all = builtins.repr = builtins.str = builtins.sorted = lambda *a, **k: True
builtins.isinstance = lambda *a: True
def f(x): return x
""")  # fmt: skip
def _(outcome, world):
    assert outcome.output in (None, 7)


@case("replaces json and os", """
import json
json.dumps = lambda *a, **k: "true"
json.loads = lambda *a, **k: True
os.write = lambda *a: 0
os._exit = lambda *a: None
sys.exit = lambda *a: None
def f(x): return x
""")  # fmt: skip
def _(outcome, world):
    assert outcome.output in (None, 7)


@case("writes a result of its own and leaves", 'os.write(3, b\'["ok", "true"]\\n["ok", "true"]\\n\')\nos._exit(0)')
def _(outcome, world):
    assert outcome.output in (None, ["ok", "true"])


@case("writes half a result", "os.write(3, b'[[[[')\nos._exit(0)")
def _(outcome, world):
    assert outcome.status == "error"


@case("writes results for other tests", "os.write(3, b'1\\n2\\n3\\n')\ndef f(x): return x")
def _(outcome, world):
    assert outcome.status == "error"


@case("replaces sys.stdout", """
import sys, io
sys.stdout = sys.__stdout__ = io.StringIO()
print("lost")
""", "stdin")  # fmt: skip
def _(outcome, world):
    assert outcome.output in (None, "")


@case("answers at exit", """
import atexit
atexit.register(lambda: os.write(1, b"at exit"))
""", "stdin")  # fmt: skip
def _(outcome, world):
    assert outcome.output in (None, "at exit")


case("runs on at exit", """
import atexit, time
atexit.register(lambda: time.sleep(30))
""", "stdin")(stopped("timeout"))  # fmt: skip


@case("at exit in f", """
import atexit
atexit.register(lambda: os.write(3, b"true"))
def f(x): return x
""")  # fmt: skip
def _(outcome, world):
    assert outcome.output in (None, 7)


@case("patches the worker", """
def f(x):
    for name, module in list(sys.modules.items()):
        if "sandbox_child" in name:
            for key in list(vars(module)):
                if callable(getattr(module, key)): setattr(module, key, lambda *a, **k: 0)
    frame = sys._getframe()
    while frame:
        frame.f_globals["_test"] = frame.f_globals["watch"] = None
        frame = frame.f_back
    return x
""")  # fmt: skip
def _(outcome, world):
    assert outcome.output in (None, 7)


@case("changes its input for the next test", """
import sys
text = sys.stdin.read()
try: os.pwrite(0, b"hacked", 0)
except OSError: pass
try: os.ftruncate(0, 0)
except OSError: pass
print(text, end="")
""", "stdin")  # fmt: skip
def _(outcome, world):
    assert outcome.output in (None, "7\n")


@case("leaves a folder nobody can empty", """
def f(x):
    os.makedirs("a/b/c"); open("a/b/c/file", "w").write("x")
    os.chmod("a/b", 0); os.chmod("a", 0)
    os.makedirs("/".join(["d"] * 200))
    return x
""")  # fmt: skip
def _(outcome, world):
    assert outcome.output in (None, 7)


@case("leaves a file for the next program", "def f(x): return tried(lambda: open('/tmp/note', 'x').write('n'))")
def _(outcome, world):
    assert not Path("/tmp/note").exists()
