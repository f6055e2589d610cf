"""Passing without solving: verdicts are earned by outputs alone."""

# ruff: noqa: E501  (programs in strings)

from pathlib import Path

from hostile.base import case, refused, stopped


@case("reads the expected outputs", """
def f(x): return tried(lambda: open("@FOLDER@/expected.json").read(), lambda: open("expected.json").read())
""", none=False)  # fmt: skip
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
        if name.split(".")[0] == "child":
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


@case(
    "leaves a file for the next program",
    "def f(x): return tried(lambda: open('/tmp/note-@ABSTRACT@', 'x').write('n'))",
    none=False,
)
def _(outcome, world):
    assert not Path(f"/tmp/note-{world.abstract}").exists()
