"""Holds a training's folder, so that a second command does not write there as well."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hyperscale.errors import RetrofitError
from hyperscale.utils.files import take_lock

if TYPE_CHECKING:
    from hyperscale.retrofit.parallel.ranks import Ranks

#: Name of the file that is locked.
LOCK = ".lock"


@contextmanager
def hold_folder(out: Path, report: Callable[[str], None], ranks: "Ranks | None" = None) -> Iterator[None]:
    """While it is entered, no other training writes in the folder; a collective.

    Args:
        out: The folder, which is made if need be.
        report: Called with a line where the file system has no locks: the folder is not held then.
        ranks: The processes of the training, of which the first one holds it; None for one alone.

    Raises:
        RetrofitError: Another training holds it; all processes are told.
    """
    with ExitStack() as stack:
        refusal = ""
        if ranks is None or ranks.is_first:
            try:
                stack.enter_context(_hold(out, report))
            except RetrofitError as error:
                refusal = str(error)
        if ranks is not None:
            refusal = ranks.gather(refusal)[0]
        if refusal:
            raise RetrofitError(refusal)
        yield


@contextmanager
def _hold(out: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder in this process. What was made for the lock alone is removed at the end.

    After a kill the lock's file stays, which nobody holds.
    """
    made = [each for each in (out, *out.parents) if not each.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = take_lock(out / LOCK)
    except BlockingIOError:
        raise RetrofitError(
            f"another retrofit is writing to {out}: wait for it or end it, or pass another --out"
        ) from None
    except OSError as error:
        report(f"note: {out} cannot be locked ({error.strerror}): start no other retrofit there")
        yield
        return
    try:
        yield
    finally:
        with lock, suppress(OSError):
            (out / LOCK).unlink()  # while it is held: whoever has opened it already sees that it is gone
            for each in made:
                each.rmdir()
