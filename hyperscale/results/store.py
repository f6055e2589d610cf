"""A run folder opened for writing: a lock, a check of whose it is, and appends that survive kills and full disks."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from hyperscale.errors import ResultsError
from hyperscale.results import manifest
from hyperscale.results.manifest import LOCK, POINTS, RUN, SAMPLES, SCHEMA, read_info
from hyperscale.results.samples import Key, iterate, key
from hyperscale.utils.files import complete_length, sync_folder, write_atomic

if TYPE_CHECKING:
    from pandas import DataFrame


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
        self._vote: str | None = None

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._open()
        except OSError as error:
            self.close()
            raise ResultsError(
                f"cannot write in {self.folder} ({error.strerror}): make room, or choose another folder with --out"
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
            (self.folder / LOCK).unlink()  # leave no trace in a folder that is not ours
            raise ResultsError(
                f"{self.folder} holds other files ({others[0]}, …) and no run: choose another folder with --out"
            )
        else:
            write_atomic(self.folder / RUN, json.dumps(self._info, indent=1) + "\n")
        path = self.folder / SAMPLES
        self._vote = read_info(self.folder).get("vote")
        self.samples = list(iterate(path))
        self._done = {key(sample) for sample in self.samples}
        self._file = path.open("ab", buffering=0)
        self._file.truncate(complete_length(path))
        sync_folder(self.folder)

    def _check(self) -> None:
        """Refuse a folder whose run was another one; `run.json` keeps what the first process wrote."""
        old = read_info(self.folder)
        if changed := manifest.changes(old, self._info):
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
        line = left = _line(sample)
        size = os.fstat(self._file.fileno()).st_size
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(size)  # a part of a line; what opens the folder next would drop it as well
            raise ResultsError(
                f"cannot write {self.folder / SAMPLES} ({error.strerror}): finished chains are kept; "
                "make room and run the same command again"
            ) from None
        # As the file has it, so that points made now and after a resume are made of the same.
        self.samples.append(json.loads(line) | ({"vote": self._vote} if self._vote else {}))
        self._done.add(key(sample))

    def vote(self, strategy: str | None) -> None:
        """Choose the strategy that the run's points are made with from now on; None for each task's own.

        Raises:
            ResultsError: The disk is full or fails; the old choice stays.
        """
        if strategy == self._vote:
            return
        info = {name: value for name, value in read_info(self.folder).items() if name != "vote"}
        try:
            write_atomic(
                self.folder / RUN, json.dumps(info | ({"vote": strategy} if strategy else {}), indent=1) + "\n"
            )
        except OSError as error:
            raise ResultsError(
                f"cannot write {self.folder / RUN} ({error.strerror}): make room and run the same command again"
            ) from None
        self._vote = strategy
        self.samples = [{**_bare(sample), **({"vote": strategy} if strategy else {})} for sample in self.samples]

    def replace(self, samples: list[dict[str, Any]]) -> None:
        """Put other contents in the place of the same chains, all at once or not at all.

        Raises:
            ResultsError: The disk is full or fails; the old contents stay.
        """
        assert self._file is not None, "the store is not open"
        assert [key(sample) for sample in samples] == [key(sample) for sample in self.samples], "other chains"
        path = self.folder / SAMPLES
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with temporary.open("wb") as file:
                file.writelines(_line(sample) for sample in samples)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(self.folder)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ResultsError(
                f"cannot write {path} ({error.strerror}): the old verdicts are kept; "
                "make room and run the same command again"
            ) from None
        self._file.close()
        self._file = path.open("ab", buffering=0)
        self.samples = samples

    def write_points(self) -> "DataFrame":
        """Rebuild ``points.csv`` from the samples, atomically; returns the points.

        Raises:
            ResultsError: The disk is full or fails.
        """
        from hyperscale.results.points import points as derive

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


@contextmanager
def opened(place: "Path | Store", info: Callable[[], dict[str, Any]]) -> Iterator[Store]:
    """A run's store: the given one, which is open and stays so, or that of a folder, opened for the time being.

    Raises:
        ResultsError: As for `Store`.
    """
    if isinstance(place, Store):
        yield place
    else:
        with Store(place, info()) as store:
            yield store


def _bare(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample without what is kept in run.json for all of them."""
    return {name: value for name, value in sample.items() if name != "vote"}


def _line(sample: dict[str, Any]) -> bytes:
    return json.dumps(_bare(sample), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
