"""Files: what is not the program's own stays unread and unwritten."""

# ruff: noqa: E501  (programs in strings)

import os
from pathlib import Path

from hostile.base import case, refused


@case("reads /etc/passwd", "def f(x): return tried(lambda: open('/etc/passwd').read())")
def _(outcome, world):
    refused(outcome, world)


@case("reads /etc/shadow, hosts and ssh keys", """
def f(x): return tried(*[lambda p=p: open(p).read() for p in ("/etc/shadow", "/etc/hosts", "@HOME@/.ssh/id_rsa")])
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("lists the home folders", """
def f(x):
    return tried(*[lambda p=p: os.listdir(p) for p in ("/home", os.path.expanduser("~") + "/.ssh", "@HOME@/.ssh", "/etc")])
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


@case("puts links where files were, and renames over them", """
def f(x):
    def link():
        os.symlink("@FOLDER@/secret", "note")
        with open("note", "w") as file: file.write("gone")
        return "written"
    def over():
        open("mine", "w").write("gone")
        os.replace("mine", "@FOLDER@/secret")
        return "replaced"
    def inside():
        os.symlink("@FOLDER@", "place")
        os.rename("place/secret", "stolen")
        return open("stolen").read()
    def exchange():
        os.mkdir("new"); os.symlink("@FOLDER@", "new/up")
        os.unlink("new/up/secret")
        return "unlinked"
    return tried(link, over, inside, exchange)
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("leaves links to the user's folders to be emptied", """
def f(x):
    for name in ("@FOLDER@", "/", "@HOME@"):
        try: os.symlink(name, "link" + name.replace("/", "_"))
        except OSError: pass
    return x
""")  # fmt: skip
def _(outcome, world):
    assert outcome.output in (None, 7)


@case("puts a link in its folder's place", """
def f(x):
    here = os.getcwd()
    def go():
        os.rmdir(here)
        os.symlink("@FOLDER@", here)
    return tried(go, lambda: os.rename(here, here + "x"), lambda: os.chmod(here, 0) or os.listdir(here) and 1)
""")  # fmt: skip
def _(outcome, world):
    assert sorted(path.name for path in world.folder.iterdir()) == ["datagrams", "expected.json", "secret", "socket"]
