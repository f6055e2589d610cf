"""Standard output and error as every command finds them: open, and able to write any character in some way."""

import codecs
import os
import sys
from contextlib import suppress

from hyperscale.errors import ConfigError
from hyperscale.utils.said_once import says_first

#: Characters of our tables and sentences, for terminals that have only ASCII or Latin-1.
_PLAIN = {
    **{"…": "...", "·": ".", "–": "-", "—": "-", "−": "-", "×": "x", "±": "+-", "≥": ">=", "≤": "<=", "→": "->"},
    **{"✓": "+", "✗": "x", "❌": "x", "✅": "+", "█": "#", "“": '"', "”": '"', "’": "'", "²": "2", "′": "'"},
}
_ERRORS = "hyperscale.plain"


def prepare_streams() -> None:
    """Make both streams usable: one that was closed is refused or opened on nothing, and no character stops a command.

    Raises:
        ConfigError: The standard output is closed.
    """
    codecs.register_error(_ERRORS, _write_plainly)
    closed = sys.stdout is None
    # A file opened next would get the number of a closed stream, and what a library prints would be written into it.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if closed:
        raise ConfigError("the standard output is closed: send it to a file, or to /dev/null")
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)


def flush_output() -> None:
    """Write what is still held back.

    Raises:
        OSError: It cannot be written.
    """
    if sys.stdout is not None:
        sys.stdout.flush()


def abandon_output() -> None:
    """Write what is still held back if that works; if it does not, Python must not try again while it ends."""
    try:
        flush_output()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, sys.stdout.fileno())
            os.close(nothing)


def write_error(line: str) -> None:
    """A line on stderr, if there is anyone to read it and no other process of this command has said it."""
    if not says_first(line):
        return
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _write_plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for characters that an encoding lacks: the nearest of ASCII, else a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = "".join(_PLAIN.get(character, "?") for character in error.object[error.start : error.end])
    return text, error.end
