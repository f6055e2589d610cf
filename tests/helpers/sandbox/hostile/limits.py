"""Time, memory, output and disk."""

from hostile.base import case, stopped
from hyperscale.scoring.sandbox.program import Outcome

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
case("endless output where a returned value goes", "def f(x):\n    while True: os.write(3, b'x' * 65536)")(
    stopped("output")
)
case("a returned value, then endless output", "def f(x):\n    os.write(3, b'7' + b' ' * (4 << 20))\n    return x")(
    stopped("output")
)
case("output from many threads", """
import threading
def flood():
    while True: os.write(1, b"x" * 4096)
try:
    for _ in range(8): threading.Thread(target=flood).start()
except RuntimeError: pass
flood()
""", "stdin")(stopped("output"))  # fmt: skip
case("stops itself", "import signal\ndef f(x): os.kill(os.getpid(), signal.SIGSTOP)")(stopped("timeout"))
case("kills itself", "import signal\ndef f(x): os.kill(os.getpid(), signal.SIGKILL)")(stopped("killed"))
case("wakes itself without end", """
import signal
def f(x):
    signal.signal(signal.SIGALRM, lambda *a: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
    while True: signal.pause()
""")(stopped("timeout"))  # fmt: skip


@case("makes files without end", """
def f(x):
    import time
    start, made = time.monotonic(), 0
    try:
        while time.monotonic() - start < 0.2:
            os.close(os.open(f"file{made}", os.O_CREAT | os.O_WRONLY)); made += 1
    except OSError: pass
    return "done"
""")  # fmt: skip
def _(outcome, world):
    assert outcome.status in ("ok", "timeout")


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
case("nesting that breaks the writer", "def f(x):\n    for _ in range(100000): x = [x]\n    return x")(stopped("error"))
case("nesting that breaks the reader", "os.write(3, b'[' * 60000 + b']' * 60000)\nos._exit(0)")(stopped("error"))


@case("nesting that stays within the limits", "def f(x):\n    for _ in range(900): x = [x]\n    return x")
def _(outcome, world):
    while isinstance(outcome.output, list):
        (inner,) = outcome.output
        outcome = Outcome("ok", inner)
    assert outcome.output in (None, 7)


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
""", none=False)  # fmt: skip
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
""", none=False)  # fmt: skip
def _(outcome, world):
    assert outcome.status != "ok" or outcome.output == 0, outcome
