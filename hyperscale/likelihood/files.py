"""Writes a measurement of likelihood into a folder, which is no run's: it has no run.json."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.errors import ConfigError
from hyperscale.report.plots.figure import DPI, RC
from hyperscale.results.manifest import RUN_FILE
from hyperscale.utils.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

SUMMARY, PICTURE, TABLES = "likelihood.json", "likelihood.png", "likelihood.md"


def check_folder(folder: Path) -> None:
    """Refuse a folder that a measurement must not be written into.

    Raises:
        ConfigError: It holds a run, or is a file.
    """
    if (folder / RUN_FILE).exists():
        raise ConfigError(f"--out {folder} is the folder of a run: choose another one")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {folder} is a file: choose a folder")


def write(
    folder: Path,
    summary: Mapping[str, Any],
    tables: "Mapping[str, pd.DataFrame]",
    markdown: str,
    draw: Callable[[], Any],
) -> list[Path]:
    """Write a measurement's files; those of an earlier one are replaced.

    Args:
        folder: Where to; it is made.
        summary: What `SUMMARY` holds.
        tables: Frames by the names of their files, without ``.csv``.
        markdown: What `TABLES` holds.
        draw: Makes the figure.

    Returns:
        The files.

    Raises:
        ConfigError: The folder holds a run, or is a file.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, str | bytes] = {
        SUMMARY: json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    }
    for name, frame in tables.items():
        contents[f"{name}.csv"] = frame.to_csv(index=False, lineterminator="\n")
    contents[TABLES] = markdown
    contents[PICTURE] = _save(draw)
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]


def _save(draw: Callable[[], Any]) -> bytes:
    import matplotlib as mpl

    with mpl.rc_context(RC):
        image = io.BytesIO()
        draw().savefig(image, dpi=DPI, format="png", metadata={"Software": None})
    return image.getvalue()
