"""A chain as it is decoded, live in a terminal: its text, its length, and what its cache holds."""

import math
import time
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from hyperscale.kv.trace import dense_peak

if TYPE_CHECKING:
    from hyperscale.engines.base import ChainProgress

_EVERY = 0.08  # seconds between two pictures; more often is not seen and would cost time
_LINES = 8


class Stream:
    """Follows one chain at a time, the first that it is told of, and vanishes when it is closed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._followed: tuple[str, str, int] | None = None
        self._others: Counter[tuple[str, str, int]] = Counter()
        self._first, self._started, self._drawn = 0, 0.0, 0.0

    def update(self, title: str, progress: "ChainProgress", note: str = "") -> None:
        """Show a chain after one more token.

        Args:
            title: Whose chain it is.
            progress: The chain; ignored if another one is followed.
            note: What else there is to say about it.
        """
        now = time.monotonic()
        chain = (title, progress.request.problem, progress.request.chain)
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        # Each step tells of every chain in flight, in some order: who comes three times in between has outlived the one
        # that is followed.
        if self._followed is None or self._others[chain] == 2:
            self._followed, self._first, self._started = chain, progress.tokens, now
            self._drawn = -math.inf  # a new one is seen at once
        if chain != self._followed:
            self._others[chain] += 1
            return
        self._others.clear()
        if now - self._drawn < _EVERY:
            return
        self._drawn = now
        self._live.update(self._picture(title, progress, note), refresh=True)

    def close(self) -> None:
        """Take it off the screen."""
        if self._live is not None:
            self._live.stop()
        self._live = self._followed = None
        self._others.clear()

    def _picture(self, title: str, progress: "ChainProgress", note: str) -> Group:
        full = dense_peak(len(progress.request.prompt_ids), progress.tokens)
        figures = Text.assemble((title, "bold cyan"), f" · {progress.tokens:,} tokens")
        if (passed := self._drawn - self._started) > 1:
            figures.append(f" · {(progress.tokens - self._first) / passed:,.0f} tokens/s")
        figures.append(f" · {progress.entries:,.0f} KV entries live, a full cache would hold {full:,}")
        if note:
            figures.append(f" · {note}", style="dim")
        # Only what can be on the last lines is laid out: a chain has thousands of tokens.
        width = self._console.width
        said = plain(progress.text())[-width * _LINES :]
        lines = Text(said, style="dim").wrap(self._console, width)[-_LINES:]
        return Group(*lines, figures)


def plain(text: str) -> str:
    """A model's text without what a terminal would take for commands, and without half a character at its end."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text.rstrip("\ufffd"))
