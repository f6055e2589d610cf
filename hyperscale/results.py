"""The on-disk store of a run: what was asked, every finished chain, and the points derived from them.

A run is a folder: ``run.json`` (resolved configuration, versions, hardware, seeds), ``samples.jsonl`` (append-only, one
finished chain a line, on the disk before the next) and ``points.csv`` (derived, can always be rebuilt). A chain is
known by its key; a store opened again holds every chain that was ever finished, so a killed run resumes without loss.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from hyperscale.errors import ResultsError

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA = 1
RUN, SAMPLES, POINTS, LOCK = "run.json", "samples.jsonl", "points.csv", ".lock"

Key = tuple[str, str, str, float, int, int, int]
_FIELDS = (
    "schema",
    "task",
    "problem",
    "method",
    "CR",
    "seed",
    "chain",
    "max_new_tokens",
    "lengths",
    "kv_reads",
    "correct",
)


@dataclass(frozen=True)
class Run:
    """One run folder, read.

    Attributes:
        folder: The run folder.
        info: Contents of ``run.json``.
        samples: Every finished chain, in the order they finished.
    """

    folder: Path
    info: dict[str, Any]
    samples: list[dict[str, Any]]


def key(sample: dict[str, Any]) -> Key:
    """What makes a chain itself: (task, problem, method, CR, seed, chain, L).

    L counts only for methods whose rule depends on it, which run once per L; for the others it is 0.
    """
    length = 0 if sample.get("length_invariant", True) else int(sample["max_new_tokens"])
    return (
        sample["task"],
        sample["problem"],
        sample["method"],
        float(sample["CR"]),
        int(sample["seed"]),
        int(sample["chain"]),
        length,
    )


def read(folder: Path | str) -> list[Run]:
    """Read a run folder, or every run folder directly inside a folder.

    Raises:
        ResultsError: The folder is missing or holds no run, or a file in it is corrupt.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ResultsError(f"no folder {folder}: pass the folder of a run, or one that holds runs")
    found = [folder] if (folder / RUN).is_file() else sorted(p.parent for p in folder.glob(f"*/{RUN}"))
    if not found:
        raise ResultsError(f"{folder} holds no run (no {RUN} in it or one folder down): make one with `hyperscale run`")
    try:
        return [Run(path, read_info(path), list(_samples(path / SAMPLES))) for path in found]
    except OSError as error:
        raise ResultsError(f"cannot read {error.filename} ({error.strerror}): mend its permissions") from None


def read_info(folder: Path) -> dict[str, Any]:
    """Read and check ``run.json``.

    Raises:
        ResultsError: The file is missing, is not JSON, or has another schema version.
    """
    path = folder / RUN
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} is unreadable ({error}): restore it, or choose another folder with --out") from None
    if not isinstance(info, dict) or not isinstance(info.get("config"), dict):
        raise ResultsError(f"{path} is not a run's description: restore it, or choose another folder with --out")
    if info.get("schema") != SCHEMA:
        raise ResultsError(
            f"{path} has schema {info.get('schema')!r}, this version reads {SCHEMA}: choose another folder with --out"
        )
    return info


def _samples(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples of a file; an unfinished last line is left out, any other bad line raises ResultsError."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                sample = json.loads(line)
            except ValueError:
                sample = None
            if not isinstance(sample, dict) or any(field not in sample for field in _FIELDS):
                raise ResultsError(
                    f"{path} line {number} is corrupt: delete that line (the same command generates its chain again) "
                    "or restore the file"
                )
            if sample["schema"] != SCHEMA:
                raise ResultsError(f"{path} line {number} has schema {sample['schema']!r}, this version reads {SCHEMA}")
            yield sample


def write_atomic(path: Path, text: str) -> None:
    """Replace a file's contents so that a reader or a crash sees the old ones or the new ones, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Names and both values of the entries in which two configurations differ."""
    found: list[str] = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append(f"{prefix}{name} was {json.dumps(a)}, now {json.dumps(b)}")
    return found


class Store:
    """A run folder opened for writing, by one process at a time.

    Use as a context manager. Opening creates the folder, takes its lock, checks that it belongs to the same
    configuration, and drops an unfinished last line of the samples.

    Raises:
        ResultsError: Another process writes there, the folder belongs to another configuration or is no run folder, a
            file in it is corrupt, or it cannot be written.
    """

    def __init__(self, folder: Path, info: dict[str, Any]) -> None:
        self.folder = folder
        self.samples: list[dict[str, Any]] = []
        self._info = {"schema": SCHEMA, **info}
        self._lock: IO[bytes] | None = None
        self._file: FileIO | None = None
        self._done: set[Key] = set()

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._open()
        except OSError as error:
            self.close()
            raise ResultsError(
                f"cannot write in {self.folder} ({error.strerror}): choose another folder with --out"
            ) from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, wanted: Key) -> bool:
        return wanted in self._done

    def _take_lock(self) -> None:
        import fcntl

        self._lock = (self.folder / LOCK).open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResultsError(
                f"another process is writing to {self.folder}: wait for it to end, or choose another folder with --out"
            ) from None

    def _open(self) -> None:
        if (self.folder / RUN).exists():
            self._check()
        elif others := sorted(p.name for p in self.folder.iterdir() if not p.name.startswith(".")):
            raise ResultsError(
                f"{self.folder} holds other files ({others[0]}, …) and no run: choose another folder with --out"
            )
        else:
            write_atomic(self.folder / RUN, json.dumps(self._info, indent=1) + "\n")
        path = self.folder / SAMPLES
        self.samples = list(_samples(path))
        self._done = {key(sample) for sample in self.samples}
        self._file = path.open("ab", buffering=0)
        self._file.truncate(_complete(path))
        _sync_folder(self.folder)

    def _check(self) -> None:
        """Refuse a folder whose run was another one; `run.json` keeps what the first process wrote."""
        old = read_info(self.folder)
        changed = [
            line
            for part in ("config", "tasks", "checkpoints", "params")
            for line in differences(
                old.get(part) or {}, self._info.get(part) or {}, "" if part == "config" else f"{part}."
            )
        ]
        if changed:
            raise ResultsError(
                f"{self.folder} holds a run with another configuration ({'; '.join(changed)}): "
                "run the old command again, or choose another folder with --out"
            )

    def append(self, sample: dict[str, Any]) -> None:
        """Write one finished chain and wait until the disk has it; a chain that is already there is left alone.

        Raises:
            ResultsError: The disk is full or fails; every chain before this one is safe.
        """
        assert self._file is not None, "the store is not open"
        sample = {"schema": SCHEMA, **sample}
        if key(sample) in self._done:
            return
        line = json.dumps(sample, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ResultsError(
                f"cannot write {self.folder / SAMPLES} ({error.strerror}): finished chains are kept; "
                "make room and run the same command again"
            ) from None
        self.samples.append(sample)
        self._done.add(key(sample))

    def write_points(self) -> "DataFrame":
        """Rebuild ``points.csv`` from the samples, atomically; returns the points.

        Raises:
            ResultsError: The disk is full or fails.
        """
        from hyperscale.points import points as derive

        ordered: list[dict[str, Any]] = sorted(self.samples, key=key)  # an order that no interruption changes
        points = derive(ordered)
        try:
            write_atomic(self.folder / POINTS, points.to_csv(index=False))
        except OSError as error:
            raise ResultsError(
                f"cannot write {self.folder / POINTS} ({error.strerror}): every chain is kept; "
                "make room and run the same command again"
            ) from None
        return points

    def close(self) -> None:
        """Give the files and the lock back."""
        for file in (self._file, self._lock):
            if file is not None:
                file.close()
        self._file = self._lock = None


def _complete(path: Path) -> int:
    """Bytes of a file up to and with its last newline."""
    data = path.read_bytes()
    return data.rfind(b"\n") + 1


def _sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
