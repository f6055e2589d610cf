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

from hyperscale.mini.model import CONTEXT, build, save
from hyperscale.mini.training.data import KINDS, make_batch, stream
from hyperscale.mini.training.pretrain import train
from hyperscale.retrofit.outcome import finish
from hyperscale.retrofit.recipe import Recipe
from hyperscale.retrofit.trainer import Finished, Retrofit

TARGETS = (2.0, 4.0, 8.0)
TOY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}


def parser() -> argparse.ArgumentParser:
    """Command-line options; their defaults are the shipped recipe."""
    p = argparse.ArgumentParser(prog="python -m hyperscale.mini.train", description=__doc__)
    p.add_argument("--out", type=Path, required=True, help="folder for base/, dms2/, dms4/, dms8/ and training.json")
    p.add_argument("--base", type=Path, help="retrofit this base instead of training one")
    p.add_argument("--base-only", action="store_true", help="stop after the base")
    p.add_argument("--seed", type=int, default=0, help="seed of initialisation, data and gate noise")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--workers", type=int, default=12, help="processes that make documents")
    p.add_argument("--steps", type=int, default=4800, help="steps of the base")
    p.add_argument("--rows", type=int, default=28, help="rows of 2,560 tokens a step, base")
    p.add_argument("--dms-rows", type=int, default=14, help="rows of 2,560 tokens a step, retrofit")
    p.add_argument("--steps-per-unit", type=float, default=450.0, help="retrofit steps per unit of compression ratio")
    p.add_argument(
        "--hard-steps", type=int, nargs=len(TARGETS), default=[200, 900, 700], metavar="N",
        help="retrofit steps with hard gates that finish the checkpoints at CR 2, 4 and 8",
    )  # fmt: skip
    p.add_argument("--method", choices=("dms", "dmc"), default="dms", help="what to retrofit")
    p.add_argument("--borrow", action="store_true", help="dms: borrow a neuron of the query, as dmc always does")
    p.add_argument("--per", choices=("head", "layer"), default="head", help="dms: whose verdicts are its own")
    p.add_argument("--fade-steps", type=int, default=300, help="steps that fade borrowed neurons out, the first")
    p.add_argument("--toy", action="store_true", help="a tiny model and a few steps, to try the recipe on a CPU")
    return p


def main(argv: list[str] | None = None) -> None:
    """Run the recipe."""
    args = parser().parse_args(argv)
    length = CONTEXT
    targets: tuple[float, ...] = TARGETS
    overrides: dict[str, int] = {}
    if args.toy:
        overrides, length, targets = TOY | {"intermediate_size": 128}, 512, (2.0,)
        args.steps, args.rows, args.dms_rows, args.workers = 20, 2, 2, 0
        args.steps_per_unit, args.hard_steps, args.fade_steps = 8, [4], 4
    args.out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"seed": args.seed, "device": _device_name(args.device), "torch": torch.__version__}

    if args.base:
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32).to(args.device)
    else:
        started = time.monotonic()
        base = build(args.seed, **overrides).to(args.device)
        batches = stream(f"base-{args.seed}", args.rows, length, args.workers)
        tokens = train(base, batches, args.steps)
        record["base"] = {"steps": args.steps, "tokens": tokens, "seconds": time.monotonic() - started}
        save(base, args.out / "base")
    if not args.base_only:
        record[args.method] = _retrofit(base, args, targets, length)
    (args.out / "training.json").write_text(json.dumps(record, indent=1) + "\n")


def _retrofit(base: Any, args: argparse.Namespace, targets: tuple[float, ...], length: int) -> list[dict[str, Any]]:
    separate = args.method == "dms" and not args.borrow
    recipe = Recipe(
        targets=targets,
        method=args.method,
        separate=separate,
        per=args.per,
        fade_steps=0 if separate else args.fade_steps,
        steps_per_unit=args.steps_per_unit,
        hard_steps=tuple(args.hard_steps),
        ledger=True,
        reach=0.88,
        groups=len(KINDS),
        symmetric=True,
        warmup=min(20, *args.hard_steps),
        seed=args.seed,
    )
    # The teacher is what is shipped: bfloat16 weights.
    for p in base.parameters():
        p.data = p.data.to(torch.bfloat16).float()
    retrofit = Retrofit(base, recipe)
    held_out = [make_batch(f"held-out-{i}", args.dms_rows, length) for i in range(4)]
    batches = stream(f"dms-{args.seed}", args.dms_rows, length, args.workers)

    def write(finished: Finished, name: str) -> None:
        save(finished.model, args.out / name, **finished.config.to_hf())

    return finish(retrofit, batches, held_out, write)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


if __name__ == "__main__":
    main()
