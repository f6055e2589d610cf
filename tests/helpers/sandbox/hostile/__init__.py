"""Programs that try what they must not, each with the assertion about what must not have happened.

Every bomb has a bound of its own, far above the sandbox's and harmless to the machine should the sandbox fail. Words in
@ signs are filled in with the paths, ports and process ids of the `World` that a program attacks.
"""

from hostile import cheating, files, limits, memory, network, proc, processes, signals, walls
from hostile.base import CASES, World, count_cases

__all__ = [
    "CASES",
    "World",
    "cheating",
    "count_cases",
    "files",
    "limits",
    "memory",
    "network",
    "proc",
    "processes",
    "signals",
    "walls",
]
