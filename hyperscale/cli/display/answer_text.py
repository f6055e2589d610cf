"""Prints the answers of a run in words, above its tables."""

import math
import re
import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from hyperscale.analysis.answers import Answer
from hyperscale.analysis.sentences import write_paragraphs

CHOICE = "(Intervals of a best count that it was chosen among many points; those of the tables are of one point each.)"
_INTERVAL = re.compile(r"\[(\S+), (\S+)\]")


def print_answers(answers: Sequence[Answer], console: Console, notes: Sequence[str] = ()) -> None:
    """Print answers, a paragraph for each model and task.

    Args:
        answers: The answers; nothing is printed without any.
        console: Where to.
        notes: What is to be known before them, as that a run is unfinished.
    """
    if not answers:
        return
    console.print(Text("Answer", style="bold"))
    for note in notes:
        console.print(Text(note))
    for heading, sentences in write_paragraphs(answers):
        console.print(Text(heading, style="bold"))
        for sentence in sentences:
            console.print(Text(_wrap(sentence, console.width)))
    if any(best.point is not None and math.isfinite(best.interval.low) for each in answers for best in each.bests):
        # Else one point seems to have two intervals, that of the answer and that of the table.
        console.print(Text(_wrap(CHOICE, console.width)), style="dim")


def _wrap(sentence: str, width: int) -> str:
    """A sentence on lines of at most so many columns, indented; a number and its %, and an interval, stay together."""
    held = _INTERVAL.sub("[\\1,\0\\2]", sentence).replace(" %", "\0%")
    return textwrap.fill(held, max(width, 20), initial_indent="  ", subsequent_indent="  ").replace("\0", " ")
