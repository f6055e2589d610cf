"""Makes the console that commands print to."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hyperscale.utils.printing import print_line

if TYPE_CHECKING:
    from rich.console import Console

#: Columns where there is no terminal to ask, and COLUMNS is not set.
PIPE_WIDTH = 140


def make_console(*, quiet: bool = False) -> "Console":
    """The standard output, or nowhere if ``quiet``; markup is off, since a path may hold what looks like markup."""
    from rich.console import Console

    class PlainConsole(Console):
        def on_broken_pipe(self) -> None:
            """Leave it to the command line, which ends with a line; rich would end the process with exit code 1."""
            raise BrokenPipeError

    class PipeConsole(PlainConsole):
        def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
            """Print lines of text whole: programs read them, and nobody sees where they end."""
            is_text = bool(objects) and all(isinstance(part, str) for part in objects)
            super().print(*objects, soft_wrap=is_text if soft_wrap is None else soft_wrap, **options)

    console = PlainConsole(markup=False, quiet=quiet)
    if console.is_terminal or os.environ.get("COLUMNS", "").isdigit():  # which rich reads
        return console
    return PipeConsole(width=PIPE_WIDTH, markup=False, quiet=quiet)


def print_notes(console: "Console", notes: Iterable[str]) -> None:
    """Print remarks on what was read, a line each."""
    for note in notes:
        print_line(console, f"note: {note}")
