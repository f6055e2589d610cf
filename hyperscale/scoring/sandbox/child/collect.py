"""Watches the process that runs a test: reads its pipe within the limits, then kills it and all that it started."""

import contextlib
import os
import select
import signal
import sys
import time
from dataclasses import dataclass

from .solve import DONE, OUT_OF_MEMORY

_CHUNK = 1 << 16
_GLANCE = 0.05  # seconds between looks at whether the process has ended with its pipe still open elsewhere


@dataclass(frozen=True)
class ProcessResult:
    """How a test's process ended: a status as in `hyperscale.scoring.sandbox.program.Outcome`, and what it wrote."""

    status: str
    data: bytes


def watch_process(pid: int, pipe: int, control: int, seconds: float, wall: float, output: int) -> ProcessResult:
    """Wait for a process; kill it when it passes a limit.

    Args:
        pid: The process.
        pipe: The pipe it writes to; closed on return.
        control: Descriptor to the parent; if the other end is gone, everything ends here and now.
        seconds: CPU time it may use.
        wall: Wall time it may use.
        output: Bytes it may write.
    """
    deadline = time.monotonic() + wall
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.register(control, 0)  # no events asked for: poll still reports that the other end has closed
    # `stop` is the limit that was reached, `status` what wait4 gave once the process had ended.
    data, status, stop = b"", None, None
    while stop is None:
        seconds_left = deadline - time.monotonic()
        if seconds_left <= 0:
            stop = "timeout"
        elif len(data) > output:
            stop = "output"
        else:
            ready = dict(poll.poll(min(seconds_left, _GLANCE) * 1000))
            if ready.get(control, 0) & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                kill_process(pid)  # the parent is gone: nobody waits for an answer
                os._exit(0)
            if pipe in ready:
                chunk = os.read(pipe, _CHUNK)
                data += chunk
                if not chunk:  # every copy of the pipe's writing end is closed
                    break
            # The process may end while something that it started keeps the pipe open, so its end is looked for too.
            elif status is None and (ending := os.wait4(pid, os.WNOHANG))[0]:
                status = ending
            elif status is not None:
                break  # it has ended, and what it left in the pipe is read
    os.close(pipe)
    # The pipe may also close before the process ends: it has the rest of its wall time.
    while stop is None and status is None:
        if (ending := os.wait4(pid, os.WNOHANG))[0]:
            status = ending
        elif time.monotonic() > deadline:
            stop = "timeout"
        else:
            time.sleep(0.0002)
    kill_process(pid)
    if status is None:
        status = os.wait4(pid, 0)
    _reap_children()
    # The system limits whole seconds only (RLIMIT_CPU), so the CPU time used is compared with the limit here.
    cpu_time = status[2].ru_utime + status[2].ru_stime
    return ProcessResult(stop or _status(status[1], cpu_time > seconds), data)


def _status(code: int, late: bool) -> str:
    if os.WIFSIGNALED(code):
        return "timeout" if late or os.WTERMSIG(code) == signal.SIGXCPU else "killed"
    if late:
        return "timeout"
    exit_code = os.WEXITSTATUS(code)
    return "ok" if exit_code == DONE else "memory" if exit_code == OUT_OF_MEMORY else "error"


def kill_process(pid: int) -> None:
    """Kill a process and all that it may have started: in a process namespace of our own, everything but us."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpid() == 1 and sys.platform == "linux":  # -1 is every process of the namespace but number 1
            os.kill(-1, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)


def _reap_children() -> None:
    """Collect the exit status of every child that is left, so that no zombie stays; as process 1, kill them first."""
    with contextlib.suppress(ChildProcessError):
        while True:
            if os.getpid() == 1:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGKILL)
                os.waitpid(-1, 0)
            elif not os.waitpid(-1, os.WNOHANG)[0]:
                break
