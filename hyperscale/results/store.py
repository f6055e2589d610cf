"""A run's folder opened for writing: a lock, a check that it belongs to this configuration, and safe appends.

Appends survive kills and full disks. A run's folder holds ``run.json`` (resolved configuration, versions, hardware,
seeds), ``samples.jsonl`` (append-only, one finished chain a line, on the disk before the next) and ``points.csv``
(derived, can always be rebuilt). A chain is known by its key; a store that is opened again knows every chain that was
ever finished, so a killed run resumes without loss.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from hyperscale.errors import ResultsError
from hyperscale.executors.faults import read_faults
from hyperscale.results import manifest
from hyperscale.results.folder import Run
from hyperscale.results.manifest import LOCK, POINTS, RUN_FILE, SAMPLES, SCHEMA, read_info
from hyperscale.results.sample_file import format_line, read_samples
from hyperscale.results.samples import Key, Sample
from hyperscale.utils.files import complete_length, sync_folder, take_lock, write_atomic

if TYPE_CHECKING:
    from hyperscale.results.points import MeasuredPoint


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
        self._info = {"schema": SCHEMA, **info}
        self._lock: IO[bytes] | None = None
        self._file: FileIO | None = None
        self._keys: dict[Key, None] = {}  # of the samples, in the file's order
        self.notes: list[str] = []  # what was left out of the samples, a sentence each

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._open()
        except OSError as error:
            self.close()
            raise ResultsError(f"cannot write in {self.folder} ({error.strerror}): {self._cure(error)}") from None
        except BaseException:
            self.close()
            raise
        return self

    def _cure(self, error: OSError) -> str:
        """What to do where the folder cannot be opened."""
        other = "choose another folder with --out"
        if isinstance(error, FileExistsError | NotADirectoryError):
            return f"there is a file in its place: {other}"
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            return f"make room, or {other}"
        try:
            holds_run = (self.folder / RUN_FILE).exists()
        except OSError:  # a folder that may not be looked into
            holds_run = False
        return "copy it to where you may write, and name the copy" if holds_run else other

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        """Number of finished chains."""
        return len(self._keys)

    def samples(self) -> Iterator[Sample]:
        """The finished chains in the order they finished, read from the disk one at a time: texts take much memory."""
        return read_samples(self.folder / SAMPLES)

    def _take_lock(self) -> None:
        try:
            self._lock = take_lock(self.folder / LOCK)
        except BlockingIOError:
            raise ResultsError(
                f"another process is writing to {self.folder}: wait for it to end, or choose another folder with --out"
            ) from None

    def _open(self) -> None:
        if (self.folder / RUN_FILE).exists():
            self._check()
        elif names := sorted(path.name for path in self.folder.iterdir() if not path.name.startswith(".")):
            (self.folder / LOCK).unlink()  # leave no trace in a folder that is not ours
            raise ResultsError(
                f"{self.folder} holds other files ({names[0]}, …) and no run: choose another folder with --out"
            )
        else:
            manifest.write_info(self.folder, self._info)
        path = self.folder / SAMPLES
        # A last line without a newline is what a kill left of a write: it is not read, and cut off here.
        self._keys = dict.fromkeys(sample.key for sample in read_samples(path, self.notes.append))
        self._file = path.open("ab", buffering=0)
        self._file.truncate(complete_length(path))
        sync_folder(self.folder)

    def _check(self) -> None:
        """Refuse a folder whose run was another one.

        `run.json` keeps what the first process wrote; an identity of the weights that it lacks is added.
        """
        old = read_info(self.folder)
        if changes := manifest.changes(old, self._info):
            remedy = "run the old command again, or choose another folder with --out"
            if all(change.partition(".")[0] in ("tasks", "documents", "prompts") for change in changes):
                remedy = (
                    "bring the task's file and data back as they were, grade with `hyperscale score` if only the "
                    "grader changed, or choose another folder with --out"
                )
            raise ResultsError(f"{self.folder} holds a run with another configuration ({'; '.join(changes)}): {remedy}")
        if "weights" in self._info and "weights" not in old:
            manifest.write_info(self.folder, old | {"weights": self._info["weights"]})
            self.notes.append(
                f"{self.folder} was begun by a version that did not look at all of the weights: those that are there "
                "now are taken for the run's"
            )

    def append(self, sample: Sample) -> None:
        """Write one finished chain and wait until the disk has it; a chain that is already there is left alone.

        Raises:
            ResultsError: The disk is full or fails; every chain before this one is safe.
        """
        assert self._file is not None, "the store is not open"
        if sample.key in self._keys:
            return
        rest = format_line(sample)  # of the line, as a write may take only a part
        size = os.fstat(self._file.fileno()).st_size
        try:
            # On the disk before the caller goes on: what is shown as finished survives a power cut.
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(size)  # a part of a line; what opens the folder next would drop it as well
            raise ResultsError(
                f"cannot write {self.folder / SAMPLES} ({error.strerror}): finished chains are kept; "
                "make room and run the same command again"
            ) from None
        self._keys[sample.key] = None

    @property
    def vote(self) -> str | None:
        """Name of the strategy that the run's points are made with; None for each task's own."""
        vote: str | None = read_info(self.folder).get("vote")
        return vote

    def set_vote(self, strategy: str | None) -> None:
        """Choose the strategy that the run's points are made with from now on; None for each task's own.

        Raises:
            ResultsError: The disk is full or fails; the old choice stays.
        """
        info = read_info(self.folder)
        if strategy == info.pop("vote", None):
            return
        if strategy:
            info["vote"] = strategy
        self._write_info(info)

    def add_batch_size(self, size: int) -> None:
        """Record how many chains decode together from now on, where that is another number than before.

        It changes no chain, so it may be another one each time a run is resumed; the seconds of chains depend on it.

        Raises:
            ResultsError: The disk is full or fails; the old record stays.
        """
        info = read_info(self.folder)
        sizes = info.get("batch_sizes") or []
        if sizes[-1:] != [size]:
            self._write_info(info | {"batch_sizes": [*sizes, size]})

    def _write_info(self, info: dict[str, Any]) -> None:
        """Put another description in the place of the old one.

        Raises:
            ResultsError: The disk is full or fails; the old one stays.
        """
        try:
            manifest.write_info(self.folder, info)
        except OSError as error:
            raise ResultsError(
                f"cannot write {self.folder / RUN_FILE} ({error.strerror}): make room and run the same command again"
            ) from None

    def replace(self, samples: Iterable[Sample]) -> None:
        """Put other contents in the place of the same chains, all at once or not at all.

        Args:
            samples: The same chains in the same order, made of `samples` one at a time if need be.

        Raises:
            ResultsError: The disk is full or fails; the old contents stay.
        """
        assert self._file is not None, "the store is not open"
        path, keys = self.folder / SAMPLES, iter(self._keys)

        def lines() -> Iterator[bytes]:
            for sample in samples:
                assert sample.key == next(keys, None), "other chains"
                yield format_line(sample)
            assert next(keys, None) is None, "chains are missing"

        try:
            write_atomic(path, lines())
        except OSError as error:
            raise ResultsError(
                f"cannot write {path} ({error.strerror}): the old verdicts are kept; "
                "make room and run the same command again"
            ) from None
        # The open file is the one that was replaced: appends have to go to the new one.
        self._file.close()
        self._file = path.open("ab", buffering=0)

    def write_points(self) -> "list[MeasuredPoint]":
        """Rebuild ``points.csv`` from the samples, atomically; returns the points.

        Raises:
            ResultsError: The disk is full or fails, or the samples lack what the run's strategy needs.
        """
        from hyperscale.results.points import table

        # Sorted by key, an order that no interruption changes, as sums of floats depend on it.
        samples = sorted((sample.without_texts() for sample in self.samples()), key=lambda sample: sample.key)
        run = Run(self.folder, read_info(self.folder), samples, faults=tuple(read_faults(self.folder)))
        points = run.points()
        try:
            write_atomic(self.folder / POINTS, table([*points, *run.group_means(points)]).to_csv(index=False))
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
