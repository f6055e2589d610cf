"""Prints lines whole, on consoles of any width."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def print_line(console: "Console", text: "str | Text") -> None:
    """Print a line as it is, however long: paths and numbers in it are copied, or read by programs."""
    console.print(text, highlight=False, soft_wrap=True)
