"""Searching memory: a program's own, its parent's, the grader's, for what others were given or gave."""

# ruff: noqa: E501  (programs in strings)

from hostile.base import case, refused

# Reads whatever is mapped near what the interpreter has allocated. A page is tried by a system call that only fails,
# with EFAULT (14) where there is nothing and with EINVAL (22) where there is memory.
SEARCH = """
import ctypes, gc, re
libc = ctypes.CDLL(None, use_errno=True)
libc.sbrk.restype = ctypes.c_void_p
def readable(page):
    number = {"x86_64": 14, "aarch64": 135}[os.uname().machine]
    return libc.syscall(number, 99, ctypes.c_void_p(page), None, 8) == -1 and ctypes.get_errno() == 22
def blocks():
    kept = gc.get_objects()
    places = {id(o) >> 20 for o in kept} | {id(vars(o)) >> 20 for o in kept if hasattr(o, "__dict__")} | {id(bytes(1 << 19)) >> 20}
    near = {place + i for place in places for i in range(-8, 9)}
    end = (libc.sbrk(0) or 0) >> 20
    for block in sorted(near | set(range(end - 48, end + 1))):
        pages = [block * (1 << 20) + i * 4096 for i in range(256)]
        part = b""
        for page in pages:
            if page > 0 and readable(page): part += ctypes.string_at(page, 4096)
            elif part: yield part; part = b""
        yield part
def search(pattern):
    return [m.decode("latin-1") for block in blocks() for m in re.findall(pattern, block)]
"""
_MARK = 'rb"EARLIER-[0-9a-f]{32}"'


@case("searches its memory for earlier programs", SEARCH + f"def f(x): return sorted(set(search({_MARK})))[:99]")
def _(outcome, world):
    assert not outcome.output


@case(
    "searches its memory as a whole program",
    SEARCH + f"print(sorted(set(search({_MARK})))[:99])",
    "stdin",
)
def _(outcome, world):
    assert outcome.output in (None, "[]\n")


@case("searches what the garbage collector knows", f"""
import gc, re
def f(x):
    gc.collect()
    found, kept = set(), gc.get_objects()
    for o in kept + [r for r in gc.get_referents(*kept)]:
        try: found |= set(re.findall({_MARK}, repr(o).encode()[:100000])) if isinstance(o, (str, bytes, bytearray, list, dict, tuple, set)) else set()
        except BaseException: pass
    return sorted(map(str, found))
""")  # fmt: skip
def _(outcome, world):
    assert not outcome.output


@case("searches frames, tracebacks and the stacks of threads", f"""
import re, threading
def f(x):
    seen, frames = [], [*sys._current_frames().values(), sys._getframe()]
    try: raise ValueError
    except ValueError as error: frames.append(error.__traceback__.tb_frame)
    while frames:
        frame = frames.pop()
        seen += [repr(frame.f_locals), repr(frame.f_globals), repr(frame.f_code.co_consts)]
        if frame.f_back: frames.append(frame.f_back)
    return re.findall({_MARK}, "".join(seen).encode()) and "found"
""")  # fmt: skip
def _(outcome, world):
    assert not outcome.output


@case("reads memory through /proc", f"""
import re
def look(name):
    found = []
    with open(f"/proc/{{name}}/maps") as maps, open(f"/proc/{{name}}/mem", "rb", 0) as memory:
        for line in maps:
            start, end = (int(n, 16) for n in line.split()[0].split("-"))
            if line.split()[1].startswith("rw") and end - start < 1 << 30:
                try: memory.seek(start); found += re.findall({_MARK}, memory.read(end - start))
                except (OSError, OverflowError, MemoryError): pass
    return found
def f(x):
    return [t for t in tried(*[lambda p=p: look(p) for p in ("self", os.getppid(), "@TEST@", 1, "@VICTIM@")]) if not t.startswith("!")]
""", landlock=True)  # fmt: skip
def _(outcome, world):
    assert not any("EARLIER" in text for text in outcome.output or [])
    assert len(outcome.output or []) <= 1, "only its own memory may be open to it"


@case("reads other processes' environments, arguments and descriptors", """
def f(x):
    names = [f"/proc/{p}/{n}" for p in (os.getppid(), "@TEST@", "@VICTIM@") for n in ("environ", "mem", "maps", "stack", "auxv")]
    links = [f"/proc/{p}/{n}" for p in (os.getppid(), "@TEST@", "@VICTIM@") for n in ("fd/0", "fd/3", "cwd", "exe", "root")]
    return tried(*[lambda n=n: open(n, "rb").read(10) for n in names], *[lambda n=n: os.readlink(n) for n in links])
""", landlock=True)  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("reads memory by process_vm_readv everywhere", """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
class Piece(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
def f(x):
    buffer = ctypes.create_string_buffer(64)
    here, there = Piece(ctypes.addressof(buffer), 64), Piece(id(f), 64)
    def go(name, pid):
        if getattr(libc, name)(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) < 0: raise OSError(ctypes.get_errno())
        return "done"
    return tried(*[lambda n=n, p=p: go(n, p) for n in ("process_vm_readv", "process_vm_writev") for p in (os.getppid(), @TEST@, @VICTIM@, 1)])
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
