"""Shows a chain as it is decoded, live in a terminal: its text, its length, and what its cache holds."""

import math
import time
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from hyperscale.kv.trace import dense_peak
from hyperscale.utils.quantities import format_speed

if TYPE_CHECKING:
    from hyperscale.engines.base import ChainProgress

_FRAME_SECONDS = 0.08  # between two pictures; more often is not seen and would cost time
_LINES = 8


class ChainView:
    """Follows one chain at a time, the first that is reported, and vanishes when it is closed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._followed: tuple[str, str, int] | None = None
        self._reports_of_others: Counter[tuple[str, str, int]] = Counter()
        # Of the followed chain: its tokens and the time when it was seen first, and when it was drawn last.
        self._first_tokens, self._start, self._last_frame = 0, 0.0, 0.0

    def update(self, title: str, progress: "ChainProgress", note: str = "") -> None:
        """Show a chain after one more token.

        Args:
            title: The arm that generates it.
            progress: The chain; ignored if another one is followed.
            note: A remark to print behind its figures.
        """
        now = time.monotonic()
        chain = (title, progress.request.problem, progress.request.chain)
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        # Every step reports all running chains. If another chain has been reported three times since the followed one,
        # the followed chain has finished: switch.
        if self._followed is None or self._reports_of_others[chain] == 2:
            self._followed, self._first_tokens, self._start = chain, progress.tokens, now
            self._last_frame = -math.inf  # draw the new one at once
        if chain != self._followed:
            self._reports_of_others[chain] += 1
            return
        self._reports_of_others.clear()
        if now - self._last_frame < _FRAME_SECONDS:
            return
        self._last_frame = now
        self._live.update(self._picture(title, progress, note), refresh=True)

    def close(self) -> None:
        """Take it off the screen."""
        if self._live is not None:
            self._live.stop()
        self._live = self._followed = None
        self._reports_of_others.clear()

    def _picture(self, title: str, progress: "ChainProgress", note: str) -> Group:
        """The end of the chain's text, and a line of figures."""
        full_cache = dense_peak(len(progress.request.prompt_ids), progress.tokens)
        figures = Text.assemble((title, "bold cyan"), f" · {progress.tokens:,} tokens")
        new_tokens = progress.tokens - self._first_tokens
        if (seconds := self._last_frame - self._start) > 1 and new_tokens:
            figures.append(f" · {format_speed(new_tokens / seconds)} tokens/s")
        figures.append(f" · {progress.entries:,.0f} KV entries live, a full cache would hold {full_cache:,}")
        if note:
            figures.append(f" · {note}", style="dim")
        # Only what can be on the last lines is laid out: a chain has thousands of tokens.
        width = self._console.width
        tail = printable(progress.text())[-width * _LINES :]
        lines = Text(tail, style="dim").wrap(self._console, width)[-_LINES:]
        return Group(*lines, figures)


def printable(text: str) -> str:
    """A model's text without control characters, which a terminal would obey, and without half a character at its end.

    Bytes that are no whole character yet are decoded as U+FFFD until the rest has come.
    """
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text.rstrip("\ufffd"))
