"""The recipe of the built-in model: ``python -m hyperscale.mini.train --out DIR``.

Trains the base from scratch, then retrofits it with DMS (or DMC) at each compression ratio, checks the gates and writes
the checkpoints in the layout of ``hyperscale/mini/weights``. Minutes on one GPU; ``--toy`` does every step in seconds
on a CPU, with a model that has learned nothing.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from hyperscale.errors import ModelError
from hyperscale.mini.model import CONTEXT, build_model, save_model
from hyperscale.mini.training.data import KINDS, make_batch, stream
from hyperscale.mini.training.pretrain import train
from hyperscale.retrofit.checkpoints import train_checkpoints
from hyperscale.retrofit.reporting.records import CheckpointRecord
from hyperscale.retrofit.settings import Recipe, describe_fault
from hyperscale.retrofit.trainer import Retrofit, TrainedStudent
from hyperscale.utils.files import write_atomic, write_folder
from hyperscale.utils.hub import model_errors
from hyperscale.utils.settings import settings_of

#: The recipe of the shipped retrofits; its departures from the paper are explained in docs/mini.md.
SHIPPED = Recipe(
    crs=(2.0, 4.0, 8.0),
    steps_per_unit=450.0,
    hard_steps=(200, 900, 700),
    window=16,
    fade_steps=300,
    accumulate=1,
    ledger=True,
    reach=0.88,
    groups=len(KINDS),
    symmetric=True,
)
#: Settings of the recipe that are options here too, under their own names.
OPTIONS = ("method", "per", "steps_per_unit", "fade_steps")
TOY_MODEL = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "intermediate_size": 128,
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Command-line options; their defaults are the shipped recipe."""
    p = argparse.ArgumentParser(prog="python -m hyperscale.mini.train", description=__doc__)
    p.add_argument("--out", type=Path, required=True, help="Folder for base/, dms2/, dms4/, dms8/ and training.json.")
    p.add_argument("--base", type=Path, help="Retrofit this base instead of training one.")
    p.add_argument("--base-only", action="store_true", help="Stop after the base.")
    p.add_argument("--seed", type=int, default=SHIPPED.seed, help="Seed of initialisation, data and gate noise.")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="Where to train.")
    p.add_argument("--workers", type=int, default=12, help="Processes that make documents.")
    p.add_argument("--steps", type=int, default=4800, help="Steps of the base.")
    p.add_argument("--rows", type=int, default=28, help="Rows of 2,560 tokens a step, base.")
    p.add_argument("--dms-rows", type=int, default=14, help="Rows of 2,560 tokens a step, retrofit.")
    p.add_argument("--borrow", action="store_true", help="dms: borrow a neuron of the query, as dmc always does.")
    settings = {setting.field: setting for setting in settings_of(Recipe)}
    for name in OPTIONS:
        p.add_argument(
            settings[name].option,
            type=settings[name].type,
            choices=settings[name].choices or None,
            default=getattr(SHIPPED, name),
            help=settings[name].description,
        )
    p.add_argument(
        settings["hard_steps"].option, type=int, nargs=len(SHIPPED.crs), default=SHIPPED.hard_steps, metavar="N",
        help="Steps that finish the checkpoints at CR 2, 4 and 8 (--finish).",
    )  # fmt: skip
    p.add_argument("--toy", action="store_true", help="A tiny model and a few steps, to try the recipe on a CPU.")
    return p


def main(argv: list[str] | None = None) -> None:
    """Run the recipe."""
    options = parser()
    args = options.parse_args(argv)
    length, overrides = CONTEXT, {}
    changes: dict[str, Any] = {name: getattr(args, name) for name in (*OPTIONS, "hard_steps", "seed")}
    changes["gate"] = "borrowed" if args.borrow else "separate"
    if args.toy:
        overrides, length = TOY_MODEL, 512
        args.steps, args.rows, args.dms_rows, args.workers = 20, 2, 2, 0
        changes |= {"crs": (2.0,), "steps_per_unit": 8, "hard_steps": (4,), "fade_steps": 4, "warmup": 4}
        changes |= {"gate_lr": 1e-2, "lr": 3e-3}  # in a dozen steps the gates must learn to evict
    try:
        recipe = SHIPPED.changed(**changes)
    except ValidationError as error:
        options.error(describe_fault(error, Recipe))
    args.out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"seed": args.seed, "device": _device_name(args.device), "torch": torch.__version__}

    if args.base:
        from transformers import AutoModelForCausalLM

        try:
            with model_errors(f"cannot load the base model {args.base}"):
                base = AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32, trust_remote_code=False).to(
                    args.device
                )
        except ModelError as error:
            options.error(str(error))
    else:
        start = time.monotonic()
        base = build_model(args.seed, **overrides).to(args.device)
        batches = stream(f"base-{args.seed}", args.rows, length, args.workers)
        tokens = train(base, batches, args.steps)
        record["base"] = {"steps": args.steps, "tokens": tokens, "seconds": time.monotonic() - start}
        save_model(base, args.out / "base")
    if not args.base_only:
        checkpoints = _retrofit(base, recipe, args, length)
        record[recipe.method] = [checkpoint.model_dump() for checkpoint in checkpoints]
    write_atomic(args.out / "training.json", json.dumps(record, indent=1) + "\n")


def _retrofit(base: Any, recipe: Recipe, args: argparse.Namespace, length: int) -> list[CheckpointRecord]:
    # The teacher is what is shipped, bfloat16 weights; they are computed with in float32.
    for p in base.parameters():
        p.data = p.data.to(torch.bfloat16).float()
    retrofit = Retrofit(base, recipe)
    held_out = [make_batch(f"held-out-{i}", args.dms_rows, length) for i in range(4)]
    batches = stream(f"dms-{args.seed}", args.dms_rows, length, args.workers)

    def write(student: TrainedStudent, name: str, _: CheckpointRecord) -> None:
        with write_folder(args.out / name) as folder:
            save_model(student.model, folder, **student.config.to_hf())

    return train_checkpoints(retrofit, batches, held_out, write)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


if __name__ == "__main__":
    main()
