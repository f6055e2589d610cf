"""``hyperscale run``."""

from pathlib import Path
from typing import Annotated

import typer

from hyperscale import arguments, terminal
from hyperscale.errors import ConfigError


def run(
    model: Annotated[
        str | None, typer.Option(help="Name (`hyperscale models`), local folder or hub id. [mini]")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Methods, e.g. vanilla,dms: one folder for all. [vanilla]")] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Ceiling per problem: 8x, kv_reads=2^28, peak_kv=32Ki, peak_bytes=8GiB, tokens=1M, seconds=600, all, "
            "or a grid's name. [8x]"
        ),
    ] = None,
    axis: Annotated[
        str | None, typer.Option(help="Cost that 8x counts: kv_reads, peak_kv, peak_bytes, tokens, seconds.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Tasks, e.g. mini_aime,mini_lcb. [the model's]")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="JSONL or Parquet file, or a folder of them, for a task's data set: PATH, or task=PATH; repeatable."
        ),
    ] = None,
    task_param: Annotated[
        list[str] | None,
        typer.Option(help="Choice of a task's problems, e.g. livecodebench.end_date=2024-12-31; repeatable."),
    ] = None,
    length: Annotated[str | None, typer.Option(help="Values of L in tokens, e.g. 8192,16384. [the task's]")] = None,
    cr: Annotated[
        str | None, typer.Option(help="Compression ratios, e.g. 4,8. [all that the model's DMS checkpoints offer]")
    ] = None,
    grid: Annotated[str | None, typer.Option(help="Grid of candidates (`hyperscale budgets`). [the model's]")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N problems of each task.")] = None,
    seed: Annotated[str | None, typer.Option(help="Seeds of the sampling noise, e.g. 0,1,2. [0]")] = None,
    temperature: Annotated[float | None, typer.Option(help="Softmax temperature. [the model's]")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus mass. [the model's]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. [auto]")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16. [auto]")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Chains that decode together; changes no result. [the model's]")
    ] = None,
    sandbox: Annotated[
        str | None, typer.Option(help="For programs the model writes: auto, bwrap, unshare or none. [auto]")
    ] = None,
    extend: Annotated[
        int | None, typer.Option(help="Replace a chain's end of thinking up to N times and let it go on, up to L. [0]")
    ] = None,
    extend_word: Annotated[
        str | None, typer.Option(help="What stands there instead; the tokenizer must have it. [Wait]")
    ] = None,
    force_answer: Annotated[
        int | None, typer.Option(help="At L, close the thinking and let the chain answer in at most K tokens. [0: no]")
    ] = None,
    vote: Annotated[
        str | None,
        typer.Option(
            help="How W chains make one verdict: majority, pass@k, pass@all, mean@k or best-of-n; `hyperscale score` "
            "can change it later. [the task's]"
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with these settings; options override it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. [results/<named after the settings>]")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and stop; needs no weights and no data.")
    ] = False,
    gpu: Annotated[
        str | None, typer.Option(help="With --dry-run: GPU to plan for, e.g. h100, b200 or 48GiB. [the one found]")
    ] = None,
    predict: Annotated[
        str | None,
        typer.Option(help="What costs are predicted from: auto, earlier (runs), pilot or closed (form). [auto]"),
    ] = None,
) -> None:
    """Generate, score and store chains within a budget; the same command resumes where it was stopped."""
    console = terminal.console()
    console.print("hyperscale: planning …", style="dim")
    options = {
        "model": model,
        "methods": arguments.names("--method", method),
        "budget": budget,
        "axis": axis,
        "tasks": arguments.names("--task", task),
        "data": arguments.pairs("--data", data),
        "task_params": arguments.nested("--task-param", task_param),
        "lengths": arguments.numbers("--length", length, int),
        "crs": arguments.numbers("--cr", cr, float),
        "grid": grid,
        "limit": limit,
        "seeds": arguments.numbers("--seed", seed, int),
        "temperature": temperature,
        "top_p": top_p,
        "device": device,
        "dtype": dtype,
        "batch_size": batch_size,
        "sandbox": sandbox,
        "extend": extend,
        "extend_word": extend_word,
        "force_answer": force_answer,
        "vote": vote,
        "predict": predict,
    }
    from hyperscale import config as configs

    asked = configs.make(
        (configs.read(config) if config else {}) | {name: value for name, value in options.items() if value is not None}
    )
    from hyperscale import plan_tables, tables

    terminal.hush()
    folder = out or Path("results") / asked.folder_name()
    if dry_run:
        from hyperscale import forecast

        expected = forecast.make(asked, gpu, folder)
        tables.plan(expected, console)
        tables.memory(expected, console)
        plan_tables.roofline(expected, console)
        return
    if gpu:
        raise ConfigError("--gpu goes with --dry-run: a run uses the GPU that is there")
    from hyperscale import orchestrator, pilot, preparation
    from hyperscale.display import Display

    prepared = preparation.prepare(asked, lambda step: console.print(f"{step} …", style="dim", highlight=False), folder)
    display, weights = Display(console), orchestrator.Weights()
    try:
        prepared = pilot.settle(prepared, folder, display, weights)
        tables.plan(prepared, console)
        found = orchestrator.execute(prepared, folder, display, weights)
    finally:
        display.close()
    plan_tables.comparison(prepared.plan, found, console)
    console.print(f"results in {folder}; pictures: hyperscale plot {folder}", highlight=False, soft_wrap=True)
