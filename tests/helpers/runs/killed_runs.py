"""The command line in processes of their own, to be killed; each is forked from one that has the libraries loaded."""

import contextlib
import ctypes
import io
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

LOADED = [
    "torch",
    "pandas",
    "hyperscale.run.pilot",
    "hyperscale.cli.display.live_run",
    "hyperscale.mini.model",
    "hyperscale.results.points",
]
LOADED += ["hyperscale.engines.torch.engine", "hyperscale.engines.loading", "hyperscale.methods", "hyperscale.cli"]
NO_MOUNT = 77

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(LOADED)


def start(arguments, log, die=None, stop_at=None, most_bytes=None):
    """Run ``hyperscale`` with these arguments; what it prints goes to a file.

    ``die``: (n, after): SIGKILL at the n-th time that it writes, syncs or renames a file of a run: before it does, or
    right after, which for a write is after half of it. ``stop_at``: a file; SIGSTOP once something was written to it.
    ``most_bytes``: that a file may have.
    """
    process = _context.Process(target=_main, args=([str(a) for a in arguments], str(log), die, stop_at, most_bytes))
    process.start()
    return process


def finish(arguments, log, die=None, seconds=500):
    """The exit code (negative: killed by that signal), and what was printed."""
    process = start(arguments, log, die)
    process.join(seconds)
    assert process.exitcode is not None, f"hangs: {Path(log).read_text()}"
    return process.exitcode, Path(log).read_text()


def on_a_small_disk(arguments, folder, copy, log, sizes, seconds=500):
    """The same command on a disk that grows from one time to the next; the run's folder is copied in the end."""
    process = _context.Process(target=_mounted, args=([str(a) for a in arguments], folder, copy, str(log), sizes))
    process.start()
    process.join(seconds)
    return process.exitcode, Path(log).read_text()


def _redirect(log):
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for name in ("stdout", "stderr"):
        setattr(sys, name, os.fdopen(os.dup(descriptor), "w", buffering=1))


def _main(arguments, log, die, stop_at, most_bytes):
    from hyperscale.cli import main

    _redirect(log)
    if die is not None:
        _strike(*die)
    if stop_at is not None:
        _stop_at(stop_at)
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    sys.argv = ["hyperscale", *arguments]
    main.main()


def _strike(left, after):
    """Count writes, syncs and renames down, and die at the last."""

    def counted(operation, half=None):
        def call(*arguments, **options):
            nonlocal left
            left -= 1
            done = None
            if left or after:
                done = (operation if left else half or operation)(*arguments, **options)
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return call

    class Torn:
        """A file whose writes are counted."""

        def __init__(self, file):
            self._file = file
            self.write = counted(file.write, self._half)

        def _half(self, data):
            self._file.write(data[: len(data) // 2])
            if isinstance(self._file, io.TextIOBase):
                self._file.flush()

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

    opened = Path.open

    def torn(path, mode="r", *arguments, **options):
        file = opened(path, mode, *arguments, **options)
        return Torn(file) if mode in ("w", "ab") else file

    Path.open = torn
    Path.replace = counted(Path.replace)
    os.fsync = counted(os.fsync)


def wait_until_stopped(process):
    """Return once a process is stopped, or has ended."""
    state = Path(f"/proc/{process.pid}/stat")
    while process.is_alive() and state.read_text().rsplit(")", 1)[1].split()[0] != "T":
        time.sleep(0.01)


def _stop_at(stop_at):
    opened = Path.open

    class Stopping:
        def __init__(self, file):
            self._file = file

        def write(self, data):
            done = self._file.write(data)
            os.kill(os.getpid(), signal.SIGSTOP)
            self.write = self._file.write
            return done

        def __getattr__(self, name):
            return getattr(self._file, name)

    Path.open = lambda path, *arguments, **options: (
        Stopping(opened(path, *arguments, **options))
        if path == stop_at and arguments[:1] == ("ab",)
        else opened(path, *arguments, **options)
    )


def _mounted(arguments, folder, copy, log, sizes):
    from hyperscale.cli import main

    _redirect(log)
    if os.getuid() or ctypes.CDLL(None).unshare(0x00020000):  # mounts of its own, which end with it
        sys.exit(NO_MOUNT)
    sys.argv = ["hyperscale", *arguments]
    for size in sizes:
        first = size == sizes[0]
        more = ["-t", "tmpfs", "tmpfs"] if first else []
        if first and subprocess.run(["mount", "--make-rprivate", "/"], check=False).returncode:
            sys.exit(NO_MOUNT)
        kind = f"size={size}k" if first else f"remount,size={size}k"
        if subprocess.run(["mount", "-o", kind, *more, folder], check=False).returncode:
            sys.exit(NO_MOUNT)
        code = 0
        try:
            main.main()
        except SystemExit as stop:
            code = stop.code
        sys.stdout.write(f"{size} KiB: exit {code}\n")
        if not code:
            break
    with contextlib.suppress(FileNotFoundError):
        shutil.copytree(Path(folder) / "run", copy)
    sys.exit(code)
