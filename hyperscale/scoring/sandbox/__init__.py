"""Runs programs that models wrote, where they cannot reach the user's files, network or processes.

How a program runs::

    grader ── Program ──► CodeRunner ──► SandboxWorker ──limits──► origin ── one fork per test
    grader ◄─ Outcomes ── (pool.py)      (worker.py)  ◄──status──  (child/main.py)      │
                                            │  ▲                                        ▼
                                            │  └──────── output, through a pipe ──── the test
                                            └─ program and input, as open files ───► (child/solve.py)

A grader gives `CodeRunner` a `Program`: source and test inputs. The runner hands it to an idle worker of its pool. A
worker is a warm Python process inside a sandbox, the origin; it forks once for every test, so no test sees another's
state and a test costs a few milliseconds. The origin never reads a program, an input or an output: they pass it by as
open descriptors, so whatever a program finds in its memory was given to it, or is the interpreter. Expected outputs
never leave the process of the grader, which compares there.

Levels, from the strongest to none:

- ``bwrap``: Linux namespaces made by bubblewrap. Hidden are all files but the interpreter and its libraries, the
  network, other processes, IPC and the host's name.
- ``unshare``: the same view, made by util-linux's ``unshare`` and a root directory of our own.
- ``guard``: no namespaces; a system call filter leaves computing and nothing else: no file can be opened. For the
  built-in model alone.
- ``none``: limits on time, memory and output; programs see the files that the user sees.

At every level, a seccomp filter (Linux) allows a list of system calls: no new processes, no sockets, no signals; and
Landlock, where the kernel has it, keeps programs from other processes.

Read in this order: `program` (the interface), `pool`, `worker`, `child.main`, `child.solve`; then how a level is chosen
and built: `choose`, `levels`, `view`, `folders`, `child.root`, `child.process`, `child.syscalls`, `child.landlock`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.scoring.sandbox.pool import CodeRunner as CodeRunner
    from hyperscale.scoring.sandbox.pool import choose_shared_level as choose_shared_level
    from hyperscale.scoring.sandbox.pool import get_shared_runner as get_shared_runner
    from hyperscale.scoring.sandbox.program import Limits as Limits
    from hyperscale.scoring.sandbox.program import Outcome as Outcome
    from hyperscale.scoring.sandbox.program import Program as Program

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "pool": ["CodeRunner", "choose_shared_level", "get_shared_runner"],
        "program": ["Limits", "Outcome", "Program"],
    },
)
