"""Chooses the formats of an export, and refuses those whose package is not installed."""

from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from hyperscale.errors import ConfigError, ResultsError
from hyperscale.results.folder import Run


class Format(NamedTuple):
    """A format.

    Attributes:
        module: Where its function ``write(run, out)`` is, which yields the files or folders that it wrote.
        package: What has to be installed.
        extra: The extra of this package that installs it; None where every installation has it.
        summary: What is written.
    """

    module: str
    package: str
    extra: str | None
    summary: str


FORMATS = {
    "lm-eval": Format("lm_eval_files", "lm_eval", None, "results_*.json and samples_*.jsonl, as lm-eval writes them"),
    "inspect": Format("inspect_logs", "inspect_ai", "inspect", "logs for inspect_ai's viewer"),
    "tensorboard": Format("tensorboard_events", "tensorboard", "tensorboard", "accuracy over cost and L, as scalars"),
    "wandb": Format("wandb_runs", "wandb", "wandb", "a run of Weights & Biases, offline; `wandb sync` uploads it"),
}


def check_formats(names: Collection[str]) -> None:
    """Refuse formats that there are not, and those whose package is missing.

    Raises:
        ConfigError: One of them cannot be written.
    """
    for name in names:
        if name not in FORMATS:
            raise ConfigError(f"no format {name!r}: choose of {', '.join(FORMATS)}")
        package, extra = FORMATS[name].package, FORMATS[name].extra
        if find_spec(package) is None:
            raise ConfigError(f"{name} needs {package}, which is not installed: pip install 'hyperscale-kv[{extra}]'")


def export_runs(
    runs: Sequence[Run], names: Collection[str], out: Path, on_file: Callable[[Path], None] = lambda _: None
) -> list[Path]:
    """Write runs in other tools' formats, each into ``OUT/FORMAT/RUN``.

    Args:
        runs: The runs; those without a finished chain are left out.
        names: Of `FORMATS`.
        out: Folder, made if need be. What an earlier export wrote for the same runs is replaced, but for runs of
            Weights & Biases, of which every export makes a new one.
        on_file: Called with everything that was written.

    Returns:
        What was written: files, or the folder of a run of Weights & Biases.

    Raises:
        ConfigError: A format does not exist, or its package is not installed.
        ResultsError: There is no finished chain, or ``out`` cannot be written.
        TaskError: A task is unknown, so that its votes cannot be counted.
    """
    check_formats(names)
    runs = [run for run in runs if run.samples]
    if not runs:
        raise ResultsError("there is no finished chain yet: nothing to export")
    files: list[Path] = []
    try:
        for name in names:
            module = import_module(f"hyperscale.export.{FORMATS[name].module}")
            for run in runs:
                folder = out / name / run.name
                folder.mkdir(parents=True, exist_ok=True)
                for path in module.write(run, folder):
                    files.append(path)
                    on_file(path)
    except BrokenPipeError:  # of whoever is told of files: nobody reads the output any more
        raise
    except OSError as error:
        raise ResultsError(f"cannot write {out} ({error.strerror}): choose another folder with --out") from None
    return files
