"""Compares a program's output with the expected one: LiveCodeBench's rules, and a stricter one for the built-in tasks.

The rules follow ``lcb_runner/evaluation/testing_util.py`` of LiveCodeBench; docs/graders.md says where ours differ.
"""

import json
from decimal import Decimal, InvalidOperation
from typing import Any


def same_text(output: str, expected: str) -> bool:
    """Whether a program's standard output is the expected one.

    Both are stripped and compared line by line, each line stripped. A line that differs still matches if all its
    tokens are decimal numbers of the same values in the same order: ``1.50 2`` is ``1.5 2.0``. Values must be equal,
    not close: LiveCodeBench gave its tolerance up because it let 50000000000000001 pass for 50000000000000000.
    """
    lines, expected_lines = output.strip().split("\n"), expected.strip().split("\n")
    return len(lines) == len(expected_lines) and all(map(_same_line, lines, expected_lines))


def _same_line(line: str, expected_line: str) -> bool:
    line, expected_line = line.strip(), expected_line.strip()
    if line == expected_line:
        return True
    tokens, expected_tokens = line.split(), expected_line.split()
    if len(tokens) != len(expected_tokens):
        return False
    try:
        return [Decimal(token) for token in tokens] == [Decimal(token) for token in expected_tokens]
    except InvalidOperation:  # not a number, or one that refuses comparison
        return False


def same_value(output: Any, expected: Any) -> bool:
    """Whether a returned value, after a round trip through JSON, equals the expected one as Python compares them.

    Tuples have become lists on the way. Numbers are compared by value (1, 1.0 and true are equal), as LiveCodeBench
    does; floats must be equal, not close.
    """
    try:
        return bool(output == expected)
    except RecursionError:
        return False


def identical_value(output: Any, expected: Any) -> bool:
    """Whether both values are the same JSON; types count (1, 1.0 and true differ)."""
    try:
        return json.dumps(output, sort_keys=True) == json.dumps(expected, sort_keys=True)
    except (ValueError, TypeError, RecursionError):
        return False
