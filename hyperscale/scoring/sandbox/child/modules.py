"""Loads, before any program runs, the modules that solutions use."""

import importlib

# At the level ``guard`` a program may import these and no others, as nothing can be read from disk there; elsewhere
# they save each test the loading.
_MODULES = (
    "array",
    "bisect",
    "cmath",
    "collections",
    "collections.abc",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "heapq",
    "itertools",
    "json",
    "math",
    "operator",
    "random",
    "re",
    "statistics",
    "string",
    "textwrap",
    "time",
    "typing",
)


def load_modules() -> None:
    """Import what solutions may use, so that they find it loaded."""
    for name in _MODULES:
        importlib.import_module(name)
