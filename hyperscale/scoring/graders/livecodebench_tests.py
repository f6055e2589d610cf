"""Reads LiveCodeBench's data: a row's tests, its function's name, and the problems that cannot be graded.

Rows of the data set (``livecodebench/code_generation_lite``) carry ``public_test_cases`` (JSON text),
``private_test_cases`` (JSON text, or base64 of zlib of a pickle of JSON text), ``metadata`` (JSON text, with
``func_name`` for functional problems), ``starter_code``, ``question_id`` and ``contest_date``. A grading target keeps
the three texts as they are, so that a run holds hidden tests in memory in compressed form only.
"""

import base64
import binascii
import json
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from hyperscale.errors import TaskError
from hyperscale.scoring.graders import restricted_pickle

FIELDS = ("public_test_cases", "private_test_cases", "metadata")
MAX_BYTES = 1 << 29  # of one problem's tests, unpacked
_MAX_DIGITS = 50_000  # of an integer in them

# Known broken problems, as LiveCodeBench's ERRATA.md lists them (of July 2025).
_MANY_ANSWERS = "several outputs are right, the tests accept one"
BROKEN: dict[str, str] = {
    "abc311_c": _MANY_ANSWERS,
    "abc326_d": _MANY_ANSWERS,
    "abc327_b": _MANY_ANSWERS,
    "abc333_e": _MANY_ANSWERS,
    "abc343_e": _MANY_ANSWERS,
    "abc362_c": _MANY_ANSWERS,
    "abc343_a": _MANY_ANSWERS,
    "arc185_c": _MANY_ANSWERS,
    "find-words-containing-character": _MANY_ANSWERS,
    "find-the-peaks": _MANY_ANSWERS,
    "generate-binary-strings-without-adjacent-zeros": _MANY_ANSWERS,
    "abc337_e": "interactive: needs a judge that answers",
    "abc355_e": "interactive: needs a judge that answers",
    "abc350_c": "erroneous tests",
    "apply-operations-to-make-string-empty": "a test with an empty string is wrong",
    "most-frequent-ids": "a test breaks the problem's own limits",
    "arc189_a": "a test expects a wrong output",
}


@dataclass(frozen=True)
class Tests:
    """A problem's tests, public ones first.

    Attributes:
        kind: "stdin": inputs and outputs are texts; "functional": inputs are argument lists, outputs values.
        function: Name of the function of a functional problem.
        inputs: One a test.
        outputs: What is expected; never handed to a program.
    """

    kind: Literal["stdin", "functional"]
    function: str | None
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


def is_broken(row: Mapping[str, Any]) -> bool:
    """Whether a row's problem is known to be ungradable; AtCoder problems go by id, LeetCode ones by id or title."""
    title = str(row.get("question_title", "")).strip().lower().replace(" ", "-")
    return str(row.get("question_id", "")).strip() in BROKEN or title in BROKEN


def make_target(row: Mapping[str, Any]) -> dict[str, str]:
    """A row's grading target: its three texts of tests and metadata, unread.

    Raises:
        TaskError: The row lacks one of them.
    """
    if missing := [name for name in FIELDS if not isinstance(row.get(name), str)]:
        raise TaskError(f"a LiveCodeBench problem lacks the text {missing[0]!r}: the data are of another format")
    return {name: row[name] for name in FIELDS}


def read_texts(target: Any) -> tuple[str, ...]:
    """The texts of a grading target, in the order of `FIELDS`; raises TaskError if it is of another form."""
    if not isinstance(target, dict) or not all(isinstance(target.get(name), str) for name in FIELDS):
        raise TaskError(f"a target of the livecodebench grader holds the texts {', '.join(FIELDS)}")
    return tuple(target[name] for name in FIELDS)


def read_tests(target: Any) -> Tests:
    """Decode a grading target.

    Raises:
        TaskError: The target is malformed, or its pickle holds anything but text.
    """
    return _decode_tests(*read_texts(target))


@lru_cache(maxsize=8)  # the chains of a problem come one after another
def _decode_tests(public: str, private: str, metadata: str) -> Tests:
    # As in the original, for this whole process: tests with such integers are also written for the sandbox, later.
    if 0 < sys.get_int_max_str_digits() < _MAX_DIGITS:
        sys.set_int_max_str_digits(_MAX_DIGITS)
    try:
        cases = [*json.loads(public), *_decode_private(private)]
        meta = json.loads(metadata) if metadata.strip() else {}
        function = meta.get("func_name")
        inputs, outputs = ([_read_text(case[name]) for case in cases] for name in ("input", "output"))
        if not cases:
            raise ValueError("no tests")
        if function is not None and not (isinstance(function, str) and function.isidentifier()):
            raise ValueError(f"no name of a function: {function!r}")
        if function is None:
            return Tests("stdin", None, tuple(inputs), tuple(outputs))
        arguments = tuple([json.loads(line) for line in text.split("\n") if line.strip()] for text in inputs)
        return Tests("functional", str(function), arguments, tuple(json.loads(text) for text in outputs))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise TaskError(f"a LiveCodeBench problem's tests cannot be read ({reason}): the data are corrupt") from None


def _read_text(value: Any) -> str:
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"a test has {value!r} where a text belongs")


def _decode_private(text: str) -> Any:
    """Private test cases from either form."""
    if text.lstrip().startswith("["):
        return json.loads(text)
    try:
        compressed = base64.b64decode(text, validate=True)
        stream = zlib.decompressobj()
        data = stream.decompress(compressed, MAX_BYTES)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"private tests are neither JSON nor packed: {error}") from None
    if stream.unconsumed_tail:
        raise ValueError(f"private tests unpack to more than {MAX_BYTES >> 20} MiB")
    cases = restricted_pickle.loads(data)
    return json.loads(cases) if isinstance(cases, str) else cases
