"""Starts runs: ``hyperscale.run(...)`` and ``hyperscale.plan(...)``, and what the command line starts them with."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.errors import ConfigError
from hyperscale.run.config.schema import RunConfig
from hyperscale.run.observer import RunObserver

if TYPE_CHECKING:
    import pandas as pd

    from hyperscale.frames import Results

RESULTS = Path("results")  # where runs lie that nobody chose a folder for


def run(
    config: RunConfig | Path | str | None = None,
    *,
    out: Path | str | None = None,
    plan: Path | str | None = None,
    observer: RunObserver | None = None,
    progress: bool = True,
    **settings: Any,
) -> "Results":
    """Generate, score and store chains within a budget, as ``hyperscale run`` does; the same call resumes a run.

    ::

        results = hyperscale.run(model="mini", method=["vanilla", "dms"], cr=8, budget="2x", limit=3)

    Args:
        config: A configuration, or a YAML file with settings; ``settings`` override it.
        out: Folder of the run; by default ``results/`` and a name made of the settings.
        plan: Repeat the plan of another run: its plan.json, or its folder.
        observer: Called at every step; in place of the bar that ``progress`` asks for.
        progress: Show a bar of the chains done on stderr.
        settings: As docs/settings.md has them, by the name of the option or of the YAML key (``cr``, ``pin_prompt``);
            lists may be lists, single values or texts with commas. None leaves what the configuration has, or the
            default.

    Returns:
        The run, read from its folder.

    Raises:
        ConfigError: A setting is unknown, has a wrong value, or does not fit the others.
        BudgetError: No point fits the budget.
        VerificationError: A chain did not keep to its method's rule.
        HyperscaleError: Anything else named does not exist, or the model cannot be run. Finished chains are kept.
    """
    from hyperscale.frames import load

    run_config = _configure(config, settings)
    folder = folder_of(run_config, out)
    if observer is None and progress:
        from hyperscale.run.progress.bar import ProgressBar

        observer = ProgressBar()
    start_run(run_config, folder, observer or RunObserver(), Path(plan) if plan is not None else None)
    return load(folder)


def plan(
    config: RunConfig | Path | str | None = None,
    *,
    gpu: str | None = None,
    out: Path | str | None = None,
    plan: Path | str | None = None,
    **settings: Any,
) -> "pd.DataFrame":
    """The points that a run would generate for, with what they are predicted to cost; needs no weights and no data.

    Args:
        config: As for `run`.
        gpu: GPU to plan for: a name like h100, or a size like 48GiB; by default the one of this machine.
        out: Folder that the run would have; finished runs beside it show what chains cost.
        plan: As for `run`.
        settings: As for `run`.

    Returns:
        A row a point, with task, method, CR, kv_budget (tokens; 0 for none), W, L, ``source`` (what the prediction
        rests on), and per problem: kv_reads and peak_kv in entries (mean over layers and KV heads), peak_bytes, tokens,
        seconds (NaN where there is nothing to tell it from).

    Raises:
        HyperscaleError: As for `run`.
    """
    import pandas as pd

    from hyperscale.run.dry_run import plan_dry_run
    from hyperscale.utils.hub import silence_transformers

    run_config = _configure(config, settings)
    if gpu is not None and not isinstance(gpu, str):
        raise ConfigError(f"gpu={gpu!r} is no text: give a name like h100, or a size like 48GiB")
    silence_transformers()
    planned = plan_dry_run(run_config, gpu, folder_of(run_config, out), Path(plan) if plan is not None else None)
    columns = ("task", "method", "CR", "kv_budget", "W", "L", "source")
    costs = ("kv_reads", "peak_kv", "peak_bytes", "tokens", "seconds")
    rows = [
        {"task": point.task, "method": point.arm.method, "CR": point.arm.CR, "kv_budget": point.arm.kv_budget}
        | {"W": point.W, "L": point.L, "source": point.source}
        | {name: getattr(point.costs, name) for name in costs}
        for point in planned.plan.points
    ]
    frame = pd.DataFrame(rows, columns=[*columns, *costs])
    return frame.astype(dict.fromkeys(costs, float))


def start_run(config: RunConfig, folder: Path, observer: RunObserver, plan: Path | None = None) -> None:
    """Prepare and execute a run in a folder; the observer is closed, whatever happens.

    Args:
        config: The configuration.
        folder: Folder of the run.
        observer: Called at every step.
        plan: A plan.json to repeat, or the folder of its run.

    Raises:
        HyperscaleError: As for `run`.
    """
    from hyperscale.utils.hub import silence_transformers

    silence_transformers()
    with closing(observer):
        from hyperscale.run import prepare
        from hyperscale.run.execute import execute_run

        execute_run(prepare.prepare_run(config, observer.on_stage, folder, plan), folder, observer)


def folder_of(config: RunConfig, out: Path | str | None) -> Path:
    """A run's folder: the one that was chosen, else one in `RESULTS` that is named after its settings."""
    return Path(out) if out is not None else RESULTS / config.folder_name()


def _configure(config: RunConfig | Path | str | None, settings: Mapping[str, Any]) -> RunConfig:
    """A configuration with settings over it.

    Raises:
        ConfigError: As for `run`.
    """
    from hyperscale.run.config.load import make_config

    if isinstance(config, str):
        config = Path(config)
    if config is not None and not isinstance(config, RunConfig | Path):
        raise ConfigError(f"{config!r} is no configuration: pass a RunConfig, a YAML file, or settings by name")
    return make_config(settings, config)
