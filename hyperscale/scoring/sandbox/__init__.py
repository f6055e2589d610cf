"""Runs programs that models wrote, where they cannot reach the user's files, network or processes.

How a program runs::

    grader ── Program ──► CodeRunner ──► SandboxWorker ──► worker process ──► one fork per test
    grader ◄─ Outcomes ── (pool.py)      (worker.py)       (child/main.py)    (child/solve.py)

A grader gives `CodeRunner` a `Program`: source and test inputs. The runner hands it to an idle worker of its pool. A
worker is a warm Python process inside a sandbox; it forks once for every test, so no test sees another's state and a
test costs about a millisecond. The fork runs the program under limits and writes its output to a pipe. Expected outputs
never enter a worker: graders compare them outside.

Levels, from the strongest to none:

- ``bwrap``: Linux namespaces made by bubblewrap. Hidden are all files but the interpreter and its libraries, the
  network, other processes, IPC and the host's name.
- ``unshare``: the same view, made by util-linux's ``unshare`` and a root directory of our own.
- ``guard``: no namespaces; a hook in the interpreter refuses files, imports and processes. Only for the built-in tasks.
- ``none``: limits on time, memory and output only; programs see what the user sees.

At every level, a seccomp filter (Linux) refuses new processes, sockets and the like.

Read in this order: `program` (the interface), `pool`, `worker`, `child.main`, `child.solve`, `child.collect`; then how
a level is chosen and built: `choose`, `levels`, `view`, `child.root`, `child.process`, `child.syscalls`, `child.guard`.
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
