"""What /proc, descriptors and the environment leak."""

# ruff: noqa: E501  (programs in strings)

from hostile.base import case, refused


@case("looks through /proc", """
def f(x):
    return tried(lambda: open("/proc/1/environ").read(), lambda: open("/proc/1/root/etc/passwd").read(),
        lambda: os.listdir("/proc/1/fd"), lambda: open("/proc/@TEST@/cmdline").read(), lambda: os.listdir("/proc/self/fd"),
        lambda: open("/proc/self/root/@FOLDER@/secret").read())
""", none=False)  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("writes its parent's memory", """
def f(x):
    return tried(*[lambda p=p: open(f"/proc/{p}/mem", "r+b").write(b"x") for p in (1, os.getppid(), @TEST@)])
""", landlock=True)  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("raises its limits through /proc and setrlimit", """
def f(x):
    import resource
    kinds = (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE)
    return tried(*[lambda k=k: resource.setrlimit(k, (-1, -1)) for k in kinds], lambda: open("/proc/self/oom_score_adj", "w"),
        lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1)))
""", none=False)  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("changes the kernel's settings", """
def f(x):
    return tried(lambda: open("/proc/sys/kernel/hostname", "w").write("x"), lambda: open("/proc/sysrq-trigger", "w"),
        lambda: os.listdir("/sys"), lambda: __import__("socket").sethostname("x"))
""", none=False)  # fmt: skip
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


@case("reads the environment", "def f(x): return [dict(os.environ), repr(sys.argv), repr(sys.orig_argv)]", none=False)
def _(outcome, world):
    assert world.secret not in str(outcome.output)
    assert "HYPERSCALE" not in str(outcome.output)
