"""Against the walls themselves: switching refusals off, and going round the interpreter."""

# ruff: noqa: E501  (programs in strings)

from hostile.base import case, refused

_OPEN = 'tried(lambda: open("/etc/passwd").read(4), lambda: open("@FOLDER@/secret").read(), lambda: os.open("@FOLDER@/secret", 0), lambda: os.listdir("@FOLDER@"))'
_LIBC = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    result = libc.syscall(name, *arguments) if isinstance(name, int) else getattr(libc, name)(*arguments)
    if result < 0: raise OSError(ctypes.get_errno())
    return result
"""


@case("empties the lists of what is refused", f"""
def f(x):
    for name, module in list(sys.modules.items()):
        for key, value in list(getattr(module, "__dict__", {{}}).items()):
            if "REFUSED" in key.upper() or "hook" in key: setattr(module, key, ())
    return {_OPEN}
""", none=False)  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("replaces the code of whatever checks", f"""
def f(x):
    harmless = (lambda *a, **k: None).__code__
    for name, module in list(sys.modules.items()):
        if "child" in name or "guard" in name:
            for value in list(vars(module).values()):
                try: value.__code__ = harmless
                except BaseException: pass
    return {_OPEN}
""", none=False)  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("replaces hooks found by the garbage collector and by frames", f"""
def f(x):
    import gc
    frame, globals_ = sys._getframe(), []
    while frame: globals_.append(frame.f_globals); frame = frame.f_back
    harmless = (lambda *a, **k: None).__code__
    for o in gc.get_objects() + [v for g in globals_ for v in list(g.values())]:
        if getattr(o, "__name__", "") in ("_hook", "hook", "refuse_events", "refuse_system_calls", "_confine"):
            try: o.__code__ = harmless
            except BaseException: pass
    return {_OPEN}
""", none=False)  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("loads the modules again from the disk", f"""
import importlib
def f(x):
    for name in ("os", "io", "posixpath", "builtins"):
        try: importlib.reload(sys.modules[name])
        except BaseException: pass
    return {_OPEN}
""", none=False)  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("calls the system itself", _LIBC + """
def f(x):
    arm = os.uname().machine == "aarch64"
    n = lambda x86, other: other if arm else x86
    path, gone, made = b"@FOLDER@/secret", b"@FOLDER@/gone", b"@FOLDER@/mark"
    how = (ctypes.c_uint64 * 3)(0, 0, 0)
    return tried(lambda: call("open", path, 0), lambda: call(n(257, 56), -100, path, 0), lambda: call(437, -100, path, how, 24),
        lambda: call("rename", path, gone), lambda: call(n(316, 276), -100, path, -100, gone, 0), lambda: call("unlink", path),
        lambda: call(n(263, 35), -100, path, 0), lambda: call("truncate", path, 0), lambda: call("link", path, made),
        lambda: call("symlink", path, made), lambda: call("mkdir", made, 0o700), lambda: call("chmod", path, 0),
        lambda: call("mknod", made, 0o10600, 0), lambda: call("creat", made, 0o600), lambda: call("rmdir", b"@FOLDER@"))
""", none=False)  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
    assert sorted(path.name for path in world.folder.iterdir()) == ["datagrams", "expected.json", "secret", "socket"]


@case("uses the numbers of other interfaces", _LIBC + """
def f(x):
    path = b"@FOLDER@/secret"
    return tried(lambda: call(0x40000000 + 2, path, 0), lambda: call(0x40000000 + 257, -100, path, 0), lambda: call(0x40000000 + 41, 2, 1, 0),
        lambda: call(425, 8, ctypes.create_string_buffer(120)), lambda: call(435, ctypes.create_string_buffer(88), 88),
        lambda: call(428, -100, path, 0), lambda: call(470), lambda: call(1000), lambda: call(449000))
""", none=False)  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("lifts the filter and its limits", _LIBC + """
def f(x):
    allow = ctypes.create_string_buffer(bytes([6, 0, 0, 0, 0, 0, 255, 127]))
    class Program(ctypes.Structure): _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
    program = Program(1, ctypes.addressof(allow))
    for attempt in (lambda: call("prctl", 22, 0, 0, 0, 0), lambda: call("prctl", 22, 2, ctypes.byref(program), 0, 0),
                    lambda: call(317, 1, 0, ctypes.byref(program)), lambda: call("prctl", 38, 0, 0, 0, 0)):
        try: attempt()
        except OSError: pass
    limits = (ctypes.c_uint64 * 2)(2**64 - 1, 2**64 - 1)
    return tried(lambda: os.fork(), lambda: call("setrlimit", 9, limits), lambda: call("setrlimit", 0, limits), lambda: call("socket", 2, 1, 0))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("sends datagrams by a pair of sockets", """
import socket
def f(x):
    def send(address):
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        return pair[0].sendto(b"x", address)
    def connect(address):
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        pair[0].connect(address)
        return pair[0].send(b"x")
    def message(address):
        pair = socket.socketpair()
        return pair[0].sendmsg([b"x"], [], 0, address)
    where = ("\\0@ABSTRACT@-d", "@FOLDER@/datagrams", "/dev/log", "/run/systemd/notify", "/run/systemd/journal/socket")
    return tried(*[lambda w=w, g=g: g(w) for w in where for g in (send, connect, message)])
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
    assert world.visitors() == 0


@case("reads the benchmark's files", """
def f(x):
    return tried(*[lambda p=p: open(p).read(9) for p in ("@REPOSITORY@/hyperscale/__init__.py", "@REPOSITORY@/README.md", "@REPOSITORY@/tasks/mini_lcb.yaml",
        "/sandbox/../@REPOSITORY@/README.md")], lambda: os.listdir("@REPOSITORY@"), lambda: os.listdir("@HOME@/.cache"), lambda: os.chdir("@REPOSITORY@"))
""", none=False)  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("forges the verdict on every descriptor", r"""
def f(x):
    for number in range(3, 1024):
        for line in (b'[0, 0.0, true]\n', b'{"pid": 1}\n', b'["ok", "7"]\n', b'pass\n'):
            try: os.write(number, line)
            except OSError: pass
    os._exit(0)
""")  # fmt: skip
def _(outcome, world):
    assert outcome.status == "error"


@case("sends its own descriptors on, and takes others'", """
import socket, array
def f(x):
    found = []
    for number in range(256):
        try:
            s = socket.socket(fileno=os.dup(number))
            found.append([number, s.family.name]); s.sendmsg([b"x"], [(1, 1, array.array("i", [0]))]); found.append(s.recv(9))
        except BaseException: pass
    return found
""")  # fmt: skip
def _(outcome, world):
    assert not outcome.output
