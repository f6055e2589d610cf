"""Measures likelihood from Python: ``hyperscale.loglik(...)``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.errors import ConfigError

if TYPE_CHECKING:
    from hyperscale.likelihood.frames import Likelihood
    from hyperscale.likelihood.measurement import Watcher


def loglik(
    files: "Path | str | Sequence[Path | str]",
    *,
    out: Path | str | None = None,
    watcher: "Watcher | None" = None,
    **settings: Any,
) -> "Likelihood":
    """How well texts are predicted under compression, as ``hyperscale loglik`` does it.

    ::

        likelihood = hyperscale.loglik("notes.txt", model="smollm2-135m", method=["tova", "window"], cr=[2, 4])
        likelihood.arms

    Args:
        files: Texts, or JSONL or Parquet files with a column ``text``, or folders of them.
        out: A folder to write numbers and picture into; nothing is written if None.
        watcher: Told how it goes.
        settings: By the names of the options, with ``_`` for ``-``; lists may be lists, single values or texts with
            commas. None leaves the default.

    Raises:
        ConfigError: A setting is unknown or has a wrong value, or no text is long enough.
        HyperscaleError: Anything else named does not exist or fit together, or the model cannot be run.
    """
    from hyperscale.likelihood.files import check_folder
    from hyperscale.likelihood.measurement import measure
    from hyperscale.likelihood.settings import LikelihoodSettings
    from hyperscale.utils.hub import silence_transformers

    silence_transformers()
    paths = [Path(file) for file in ([files] if isinstance(files, str | Path) else files)]
    if not paths:
        raise ConfigError("no text to score: pass at least one file")
    if out is not None:
        check_folder(Path(out))  # before the work
    likelihood = measure(paths, LikelihoodSettings.from_values(settings), watcher, None if out is None else Path(out))
    if out is not None:
        likelihood.write(out)
    return likelihood
