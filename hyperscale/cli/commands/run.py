"""``hyperscale run``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyperscale.cli import arguments
from hyperscale.cli.display.console import hush, make_console
from hyperscale.errors import ConfigError, HyperscaleError

if TYPE_CHECKING:
    from hyperscale.cli.display.json_events import Events
    from hyperscale.run.config.schema import RunConfig
    from hyperscale.run.observer import Observer


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
    method_param: Annotated[
        list[str] | None,
        typer.Option(help="Parameter of a method (`hyperscale methods`), e.g. window.recent=32; repeatable."),
    ] = None,
    pin_prompt: Annotated[
        bool | None,
        typer.Option(
            "--pin-prompt/--no-pin-prompt",
            help="Never evict the prompt, or let it go like the rest, for all methods that have the choice. "
            "[each method's own]",
        ),
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
    engine: Annotated[
        str | None, typer.Option(help="What generates: torch, or vllm where it is installed (docs/vllm.md). [torch]")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. [auto]")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16. [auto]")] = None,
    kv_dtype: Annotated[
        str | None, typer.Option(help="What the cache is kept in: auto (as dtype), fp8, int8 or int4. [auto]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Chains that decode together; changes no result. [the model's]")
    ] = None,
    gpu_memory: Annotated[
        float | None, typer.Option(help="Part of the GPU's memory that vLLM takes; changes no result. [0.9]")
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Tell what happens in JSON Lines on stdout, for machines (docs/machines.md).")
    ] = False,
) -> None:
    """Generate, score and store chains within a budget; the same command resumes where it was stopped."""
    from hyperscale.cli.display.json_events import Events

    events = Events(sys.stdout) if as_json else None
    if events:
        events.stage("planning")
    else:
        make_console().print("hyperscale: planning …", style="dim")
    options = {
        "model": model,
        "methods": arguments.names("--method", method),
        "budget": budget,
        "axis": axis,
        "tasks": arguments.names("--task", task),
        "data": arguments.pairs("--data", data),
        "task_params": arguments.nested("--task-param", task_param, "livecodebench.end_date=2024-12-31"),
        "params": arguments.typed("--method-param", method_param, "window.recent=32"),
        "pin_prompt": pin_prompt,
        "lengths": arguments.numbers("--length", length, int),
        "crs": arguments.numbers("--cr", cr, float),
        "grid": grid,
        "limit": limit,
        "seeds": arguments.numbers("--seed", seed, int),
        "temperature": temperature,
        "top_p": top_p,
        "engine": engine,
        "device": device,
        "dtype": dtype,
        "kv_dtype": kv_dtype,
        "batch_size": batch_size,
        "gpu_memory": gpu_memory,
        "sandbox": sandbox,
        "extend": extend,
        "extend_word": extend_word,
        "force_answer": force_answer,
        "vote": vote,
        "predict": predict,
    }
    from hyperscale.run.config import load

    try:
        asked = load.make(load.over(load.read(config) if config else {}, options))
        hush()
        folder = out or Path("results") / asked.folder_name()
        if dry_run:
            _plan(asked, gpu, folder, events)
        elif gpu:
            raise ConfigError("--gpu goes with --dry-run: a run uses the GPU that is there")
        else:
            _run(asked, folder, events)
    except HyperscaleError as error:
        if events:
            events.failed(str(error))
        raise


def _plan(asked: "RunConfig", gpu: str | None, folder: Path, events: "Events | None") -> None:
    from hyperscale.cli.display import plan_tables, tables
    from hyperscale.run import dry_run

    expected = dry_run.make(asked, gpu, folder)
    if events:
        events.planned(expected, folder)
        return
    console = make_console()
    tables.plan(expected, console)
    tables.memory(expected, console)
    plan_tables.roofline(expected, console)


def _run(asked: "RunConfig", folder: Path, events: "Events | None") -> None:
    from hyperscale.cli.display.live_run import Display
    from hyperscale.results.store import Store
    from hyperscale.run import engine_cache, execute, pilot, prepare

    observer: Observer = events or Display(make_console())
    weights = engine_cache.Weights()
    try:
        prepared = prepare.prepare(asked, observer.stage, folder)
        with Store(folder, prepared.info()) as store:  # one lock from the pilot to the points
            prepared = pilot.settle(prepared, store, observer, weights)
            observer.planned(prepared, folder)
            execute.execute(prepared, store, observer, weights)
    finally:
        weights.close()
        observer.close()
