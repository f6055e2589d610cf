"""What a folder holds of the retrofit that a command asks for."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from hyperscale.errors import RetrofitError
from hyperscale.retrofit.recipes import name_recipe
from hyperscale.retrofit.reporting.records import RECORD, TrainingRecord
from hyperscale.retrofit.resume.folder_lock import LOCK
from hyperscale.retrofit.resume.same_training import require_same_settings
from hyperscale.retrofit.settings import RetrofitSettings
from hyperscale.utils.files import try_writing

#: Folder of the texts that a retrofit got by itself, and the settings that it got them for.
SOURCES = "data"
SOURCES_SETTINGS = "settings.json"
#: When the retrofit began, beside these settings, of which it is none.
DATE = "date"


def find_begun(settings: RetrofitSettings) -> TrainingRecord | None:
    """The record of the retrofit that the folder holds; None if the folder is new or empty.

    Raises:
        RetrofitError: The folder holds something else, or a retrofit with other settings.
    """
    out = settings.out
    if not out.exists() or (out.is_dir() and not _list_names(out)):
        return None
    if (stored := _settings_of_sources(out)) is not None:
        if stored:
            require_same_settings(out, stored, settings)
        return None
    if not (out / RECORD).is_file():
        raise RetrofitError(f"{out} exists and is not empty: nothing is overwritten, pass another --out")
    begun = TrainingRecord.read(out)
    if not begun.settings:
        raise RetrofitError(f"{out} holds a retrofit of a version that could not resume: pass another --out")
    require_same_settings(out, begun.settings, settings)
    return begun


def find_date(out: Path, begun: TrainingRecord | None) -> datetime:
    """What chat templates take for the present: when the retrofit began, so that one that goes on has the same tokens.

    Args:
        out: The folder of the retrofit.
        begun: The record that it holds, if it does.

    Returns:
        That date; now for a new retrofit, and for one of a version that did not keep the date.

    Raises:
        RetrofitError: What the folder says is no date.
    """
    if begun is not None:
        return begun.date or datetime.now()
    text = (_settings_of_sources(out) or {}).get(DATE)
    try:
        return datetime.now() if text is None else datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise RetrofitError(
            f"{out / SOURCES / SOURCES_SETTINGS}: {DATE} {text!r} is no date: pass another --out"
        ) from None


def find_recipe(out: Path) -> str | None:
    """The recipe of the retrofit that a folder holds, if it does."""
    if (out / RECORD).is_file():
        stored = TrainingRecord.read(out).settings
    elif known := _settings_of_sources(out):
        stored = known
    else:
        return None
    return name_recipe(stored.get("train", "all"))


def require_writable(out: Path) -> None:
    """Refuse a folder that no checkpoint could be written in.

    Raises:
        RetrofitError: It is one.
    """
    try:
        try_writing(out)
    except OSError as error:
        raise RetrofitError(f"cannot write in {out} ({error.strerror}): choose another folder with --out") from None


def _settings_of_sources(out: Path) -> dict[str, Any] | None:
    """The settings of a retrofit that was ended while it got its texts; None if the folder holds something else.

    Empty if it had got none yet: then nothing binds the next command.
    """
    if not out.is_dir() or _list_names(out) != [SOURCES]:
        return None
    if {path.name for path in (out / SOURCES).iterdir() if path.name[0] != "."} <= {SOURCES_SETTINGS}:
        return {}
    try:
        stored = json.loads((out / SOURCES / SOURCES_SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) else None


def _list_names(out: Path) -> list[str]:
    """What a folder holds; the lock does not tell whose it is."""
    return [path.name for path in out.iterdir() if path.name != LOCK]
