"""Reads and writes ``samples.jsonl``: one finished chain a line, each with the number of its schema.

A line is read by its own schema: a run that an older version began and this one resumed holds lines of both.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from hyperscale.errors import ResultsError
from hyperscale.results import schema1
from hyperscale.results.manifest import SCHEMA
from hyperscale.results.samples import ADAPTER, Key, Sample
from hyperscale.utils.validation import first_fault

_START = f'{{"schema":{SCHEMA},'.encode()
"""How a line begins that this version wrote; the rest is the JSON of a `Sample`."""


def read_samples(path: Path, note: Callable[[str], None] = lambda _: None) -> Iterator[Sample]:
    """Yield the samples of a file, in its order; none if there is no file. An unfinished last line is left out.

    A chain counts once: a line that repeats an earlier one is left out, whenever it was generated.

    Args:
        path: The file.
        note: Told of lines that were left out, once, when the file has been read to its end.

    Raises:
        ResultsError: A line is corrupt or of an unknown schema, the message names line and field; or two lines say
            different things of the same chain.
    """
    if not path.exists():
        return
    known: dict[tuple[str, Key], tuple[int, int]] = {}  # a chain's line, and a hash of what it says
    repeated: list[tuple[int, int]] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):  # a kill within a write; `Store` drops it
                break
            try:
                sample = parse(line)
            except (ValueError, RecursionError) as error:  # ValidationError is a ValueError
                raise ResultsError(_message(path, number, error)) from None
            first, contents = known.setdefault((sample.model, sample.key), (number, _contents(sample)))
            if first == number:
                yield sample
            elif contents == _contents(sample):
                repeated.append((number, first))
            else:
                raise ResultsError(
                    f"{path} line {number} is the chain of line {first} again ({sample.task}/{sample.problem}, "
                    f"{sample.arm}, seed {sample.seed}, chain {sample.chain}), with other contents: delete the line "
                    "that is not this run's"
                )
    if repeated:
        some = f"line {repeated[0][0]} repeats line {repeated[0][1]}"
        more = f", and {len(repeated) - 1} more do" if len(repeated) > 1 else ""
        note(f"{path} {some}{more}: each chain counts once")


def _contents(sample: Sample) -> int:
    """A hash of what a line says of its chain, without the seconds that it took."""
    cuts = [(cut.L, cut.tokens, cut.kv_reads, cut.peak_kv, cut.answer, cut.correct) for cut in sample.cuts]
    return hash((sample.text, sample.finish, sample.prompt_hash, *cuts))


def parse(line: bytes) -> Sample:
    """The sample of a line.

    Raises:
        UnknownSchemaError: The line has a schema that this version does not know.
        ValueError: The line is corrupt; a `pydantic.ValidationError` if it is JSON with a schema.
    """
    # The usual case, in which the bytes go to the validator as they are, in less than half the time.
    if line.startswith(_START):
        return ADAPTER.validate_json(b"{" + line[len(_START) :])
    values = json.loads(line)  # of an older version, or edited by hand
    if not isinstance(values, dict) or "schema" not in values:
        raise ValueError("it is no JSON object with a schema")
    schema = values.pop("schema")
    if schema == schema1.SCHEMA:
        return schema1.convert(values)
    if schema != SCHEMA:
        raise UnknownSchemaError(schema)
    return ADAPTER.validate_json(json.dumps(values))


def format_line(sample: Sample) -> bytes:
    """The line of a sample, as compact as JSON allows: what is empty is left out."""
    return _START + ADAPTER.dump_json(sample, exclude_defaults=True)[1:] + b"\n"


class UnknownSchemaError(ValueError):
    """A line of a version that is not known here."""


def _message(path: Path, number: int, error: Exception) -> str:
    if isinstance(error, UnknownSchemaError):
        return f"{path} line {number} has schema {error.args[0]!r}, this version reads {schema1.SCHEMA} and {SCHEMA}"
    fault = ""
    if isinstance(error, ValidationError):
        location, reason = first_fault(error)
        fault = f" ({'.'.join(map(str, location))} {reason})" if location else f" ({reason})"
    return (
        f"{path} line {number} is corrupt{fault}: delete that line (the same command generates its chain again) "
        "or restore the file"
    )
