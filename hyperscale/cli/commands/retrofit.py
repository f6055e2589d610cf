"""``hyperscale retrofit``."""

from pathlib import Path
from typing import Annotated

import typer

from hyperscale.cli import arguments
from hyperscale.cli.display.console import make_console
from hyperscale.utils.hub import silence_transformers


def retrofit(
    model: Annotated[str, typer.Option(help="Model to start from: a name, a folder or a hub id.")],
    data: Annotated[Path, typer.Option(help="JSONL, Parquet or plain text, or a folder of them.")],
    out: Annotated[Path, typer.Option(help="Folder for dms<CR>/ and training.json; new or empty.")],
    cr: Annotated[str, typer.Option(help="Compression ratios to leave a checkpoint at, e.g. 2,4,8.")] = "8",
    steps_per_unit: Annotated[float, typer.Option(help="Steps in which the ratio rises by one.")] = 100.0,
    hard_steps: Annotated[int, typer.Option(help="Steps with inference's gates that finish each checkpoint.")] = 150,
    window: Annotated[int, typer.Option(help="Tokens that stay whatever their verdict.")] = 256,
    gate: Annotated[str, typer.Option(help="separate: a projection of its own; borrowed: a neuron of the query.")] = (
        "separate"
    ),
    per: Annotated[str, typer.Option(help="head: each KV head has its verdicts; layer: all of one share them.")] = (
        "head"
    ),
    fade_steps: Annotated[int, typer.Option(help="Steps before all others that fade borrowed neurons out.")] = 2000,
    rows: Annotated[int, typer.Option(help="Rows held in memory at once.")] = 1,
    length: Annotated[int, typer.Option(help="Tokens of a row; 0 for 8192 or the model's context.")] = 0,
    accumulate: Annotated[int, typer.Option(help="Batches of --rows rows in an optimiser step.")] = 16,
    lr: Annotated[float | None, typer.Option(help="Of the weights. [1e-5 below 2B weights, else 3e-5]")] = None,
    gate_lr: Annotated[float, typer.Option(help="Learning rate of the gates' projections.")] = 3e-5,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="Count the ratio in reads and held entries, not in evicted tokens.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all-tokens", help="Count whole chats in the loss, not their last reply alone.")
    ] = False,
    column: Annotated[str | None, typer.Option(help="Column of the data. [messages, else text]")] = None,
    weights: Annotated[str, typer.Option(help="Type of the trained weights: float32 or bfloat16.")] = "float32",
    seed: Annotated[int, typer.Option(help="Of data order and gate noise.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. [cuda if there is one]")] = None,
) -> None:
    """Teach a model DMS: make the checkpoints that `hyperscale run --model OUT --method dms` runs. One GPU."""
    crs = tuple(arguments.numbers("--cr", cr, float) or ())
    console = make_console()

    def report(line: str) -> None:
        console.print(line, highlight=False)

    report("starting …")
    silence_transformers()
    import torch

    from hyperscale.retrofit.job import Job, run

    job = Job(
        model=model,
        data=data,
        out=out,
        crs=crs,
        steps_per_unit=steps_per_unit,
        hard_steps=hard_steps,
        window=window,
        gate=gate,
        per=per,
        fade_steps=fade_steps,
        rows=rows,
        length=length,
        accumulate=accumulate,
        lr=lr,
        gate_lr=gate_lr,
        ledger=ledger,
        everything=everything,
        column=column,
        weights=weights,
        seed=seed,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
    )
    run(job, report)
    report(f"run it: hyperscale run --model {out} --method dms --cr {','.join(f'{each:g}' for each in crs)}")
