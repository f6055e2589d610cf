"""Ablations of a retrofit on the built-in model: what each part of the recipe is worth at CR 4 and 8, and DMC.

Usage: python benchmarks/retrofit_ablations.py train --out DIR [--processes 8]    # trains and evaluates; goes on
       python benchmarks/retrofit_ablations.py table --out DIR                    # Markdown, and DIR/ablations.png
       python benchmarks/retrofit_ablations.py train --toy --out DIR              # seconds a row, on the CPU

A row is a variant and a seed: the shipped base retrofitted by the shipped recipe with fewer, smaller steps (`BASE`) and
the variant's changes, then evaluated at both ratios on the built-in tasks: one chain a problem, L = 2,048, the sampling
noise that the full cache's chains had. Its numbers are rows/NAME.json in DIR; a row that has one is passed over, so the
same command goes on where another ended. Rows run --processes at a time on one device, the first seeds of all before
the second. All rows of a seed see the same text.

The table has the mean over seeds: KL to the base on held-out text under the gates of inference, accuracy over the three
tasks with a 95 % interval over problems, and its difference from the base recipe at the same ratio, paired by problem
(of the seeds that both have). "refused" counts checkpoints that the gate check refused; they are evaluated all the
same.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperscale.analysis.differences import Difference, interval_of_differences
from hyperscale.results.intervals import wilson_interval
from hyperscale.utils.files import write_atomic

TASKS = ("mini_aime", "mini_gpqa", "mini_lcb")
BASE_NAME, FULL = "base", "full"
#: What all rows share beside the shipped recipe: 1,140 steps of 20 K tokens, 23 M tokens, on the way to 4x and 8x.
BASE: dict[str, Any] = {"crs": (4.0, 8.0), "steps_per_unit": 120.0, "hard_steps": (150,), "fade_steps": 200}
#: Rates that are given to what trains beside a frozen base: those of the recipes, and ten times as much.
_ADAPTERS: dict[str, Any] = {"train": "gates", "finish": "soft", "gate_lr": 3e-4}
_LORA: dict[str, Any] = {"train": "lora", "lr": 2e-4, "gate_lr": 3e-4}
#: Changes of each variant, and the number of its seeds.
VARIANTS: dict[str, tuple[dict[str, Any], int]] = {
    "rate 300": ({"steps_per_unit": 300.0}, 3),  # first, since it takes longest
    "dmc": ({"method": "dmc", "finish": "hard"}, 3),
    BASE_NAME: ({}, 3),
    "window 4": ({"window": 4}, 3),
    "window 64": ({"window": 64}, 3),
    "immediate": ({"eviction": "immediate"}, 3),
    "soft finish": ({"finish": "soft"}, 3),
    "borrowed": ({"gate": "borrowed", "finish": "hard"}, 3),
    "borrowed, soft finish": ({"gate": "borrowed"}, 3),
    "dmc, soft finish": ({"method": "dmc"}, 3),
    "adapters": (_ADAPTERS, 3),
    "lora": (_LORA, 3),
    "per layer": ({"per": "layer"}, 3),
    "bfloat16 weights": ({"weights": "bfloat16"}, 3),
    "rate 50": ({"steps_per_unit": 50.0}, 3),
    "immediate, window 4": ({"eviction": "immediate", "window": 4}, 3),
    "immediate, window 64": ({"eviction": "immediate", "window": 64}, 3),
    "adapters, 10 x rate": (_ADAPTERS | {"gate_lr": 3e-3}, 3),
    "lora, 10 x rate": (_LORA | {"lr": 2e-3}, 3),
}


class Row(NamedTuple):
    """A variant with a seed."""

    variant: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.variant.replace(',', '').replace(' ', '-')}-{self.seed}"


class Sizes(NamedTuple):
    """How large everything is."""

    rows: int = 8
    length: int = 2560
    tokens: int = 2048
    problems: int = 100


TOY = Sizes(rows=1, length=192, tokens=96, problems=10)
#: Changes of every toy row: a dozen steps.
TOY_CHANGES: dict[str, Any] = {"crs": (2.0,), "steps_per_unit": 6.0, "hard_steps": (3,), "fade_steps": 3, "warmup": 2}


def rows_of(seeds: int) -> Iterator[Row]:
    """All rows, the first seed of every variant before the second; the full cache's comes first."""
    yield Row(FULL, 0)
    for seed in range(seeds):
        for variant, (_, count) in VARIANTS.items():
            if seed < count:
                yield Row(variant, seed)


# --- one row ---


def run_row(row: Row, out: Path, *, toy: bool, device: str) -> None:
    """Train and evaluate a row, and write its numbers."""
    start = time.monotonic()
    folder, sizes = out / "models" / row.name, TOY if toy else Sizes()
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was ended
    folder.mkdir(parents=True)
    found: dict[str, Any] = {"variant": row.variant, "seed": row.seed, "device": device}
    if row.variant == FULL:
        found["checkpoints"] = [{"cr": 1.0, **evaluate("mini", "vanilla", 1.0, out / "runs" / row.name, sizes, device)}]
    else:
        checkpoints = train(row, folder, sizes, toy=toy, device=device)
        method = VARIANTS[row.variant][0].get("method", "dms")
        trained = time.monotonic() - start
        for made in checkpoints:
            cr = made["cr"]
            if made["refused"]:
                (folder / f"refused-{method}{cr:g}").rename(folder / f"{method}{cr:g}")
            runs = out / "runs" / f"{row.name}-{cr:g}"
            made |= evaluate(str(folder), method, cr, runs, sizes, device)
        found |= {"checkpoints": checkpoints, "seconds of training": trained}
    found["seconds"] = time.monotonic() - start
    (out / "rows").mkdir(exist_ok=True)
    write_atomic(out / "rows" / f"{row.name}.json", json.dumps(found) + "\n")


def train(row: Row, folder: Path, sizes: Sizes, *, toy: bool, device: str) -> list[dict[str, Any]]:
    """Retrofit the shipped base into ``folder``; what the record says of each checkpoint."""
    import torch

    from hyperscale.engines.loading import load_model
    from hyperscale.mini.model import WEIGHTS, save_model
    from hyperscale.mini.train import SHIPPED
    from hyperscale.mini.training.data import make_batch, stream
    from hyperscale.retrofit.checkpoints import train_checkpoints
    from hyperscale.retrofit.reporting.records import CheckpointRecord
    from hyperscale.retrofit.trainer import Retrofit, TrainedStudent

    changes = dict(VARIANTS[row.variant][0])
    weights = getattr(torch, changes.pop("weights", "float32"))
    recipe = SHIPPED.changed(**{**BASE, **changes, **(TOY_CHANGES if toy else {}), "seed": row.seed})
    (folder / "base").symlink_to(WEIGHTS / "base")
    base, _ = load_model(str(WEIGHTS / "base"), device=device, dtype=torch.float32)
    retrofit = Retrofit(base, recipe, dtype=weights)
    held_out = [make_batch(f"held-out-{i}", sizes.rows, sizes.length) for i in range(4)]
    made: list[CheckpointRecord] = []

    def save(student: TrainedStudent, name: str, record: CheckpointRecord) -> None:
        made.append(record)
        save_model(student.model, folder / name, **student.config.to_hf())

    from hyperscale.errors import RetrofitError

    batches = stream(f"dms-{row.seed}", sizes.rows, sizes.length, workers=0 if toy else 2)
    try:
        train_checkpoints(retrofit, batches, held_out, save)
    except RetrofitError as error:
        if len(made) < len(recipe.crs):
            raise
        print(error)
    kept = ("cr", "steps", "tokens", "kl_hard", "kl_noisy", "reached_cr", "refused")
    return [{name: getattr(record, name) for name in kept} | {"log": record.log[-40:]} for record in made]


def evaluate(model: str, method: str, cr: float, out: Path, sizes: Sizes, device: str) -> dict[str, Any]:
    """Accuracy on each problem, realised ratio and reads on each task."""
    import hyperscale

    results = hyperscale.run(
        model=model, method=method, cr=cr, task=TASKS, budget="all", grid="one", length=sizes.tokens,
        limit=sizes.problems, temperature=0.8, top_p=1, dtype="float32", engine="torch", device=device,
        batch_size=len(TASKS) * sizes.problems, out=out, progress=False,
    )  # fmt: skip
    at = results.problems.query("W == 1 and L == @sizes.tokens")
    points = results.points.query("W == 1 and L == @sizes.tokens").set_index("task")
    return {
        "accuracy": {
            task: dict(zip(of_task["problem"], of_task["accuracy"] / 100, strict=True))
            for task, of_task in at.groupby("task")
        },
        "realised_cr": points["realised_cr"].to_dict(),
        "kv_reads": points["kv_reads"].to_dict(),
    }


# --- all rows ---


def run_rows(args: argparse.Namespace) -> int:
    """Run what is missing, several rows at a time; the number of rows that failed."""
    (args.out / "logs").mkdir(parents=True, exist_ok=True)
    wanted = [row for row in rows_of(args.seeds) if not args.variants or row.variant in (*args.variants, FULL)]
    waiting = deque(row for row in wanted if not (args.out / "rows" / f"{row.name}.json").is_file())
    print(f"{len(wanted)} rows, {len(waiting)} to do", flush=True)
    running: dict[Row, tuple[subprocess.Popen[bytes], float]] = {}
    failed = 0
    start = time.monotonic()
    while waiting or running:
        while waiting and len(running) < args.processes and not is_late(start, args.minutes):
            row = waiting.popleft()
            command = [sys.executable, __file__, "row", "--out", str(args.out), "--device", args.device]
            command += ["--variant", row.variant, "--seed", str(row.seed), *(["--toy"] if args.toy else [])]
            with (args.out / "logs" / f"{row.name}.log").open("wb") as log:
                process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            running[row] = process, time.monotonic()
        for row, (process, begun) in list(running.items()):
            if process.poll() is not None:
                del running[row]
                failed += process.returncode != 0
                state = "done" if process.returncode == 0 else f"failed ({args.out}/logs/{row.name}.log)"
                print(f"{row.name}: {state}, {time.monotonic() - begun:.0f} s; {len(waiting)} to go", flush=True)
        if is_late(start, args.minutes) and not running:
            break
        time.sleep(0.5)
    return failed


def is_late(start: float, minutes: float | None) -> bool:
    """Whether no further row is to be begun."""
    return minutes is not None and time.monotonic() - start > 60 * minutes


# --- the table ---


class Cell(NamedTuple):
    """What is known of a variant at a ratio."""

    variant: str
    cr: float
    seeds: int
    kl: float
    accuracy: float
    low: float
    high: float
    spread: float
    difference: Difference | None
    realised: list[float]
    refused: int
    tokens: float


def read_rows(out: Path) -> dict[tuple[str, float], dict[int, dict[str, Any]]]:
    """Checkpoints by variant and ratio, and by seed."""
    found: dict[tuple[str, float], dict[int, dict[str, Any]]] = {}
    for file in sorted((out / "rows").glob("*.json")):
        row = json.loads(file.read_text(encoding="utf-8"))
        for made in row["checkpoints"]:
            found.setdefault((row["variant"], made["cr"]), {})[row["seed"]] = made
    return found


def by_problem(made: dict[str, Any]) -> dict[str, float]:
    """Accuracy on each problem of all tasks."""
    return {problem: accuracy for of_task in made["accuracy"].values() for problem, accuracy in of_task.items()}


def mean_over_seeds(seeds: dict[int, dict[str, Any]]) -> dict[str, float]:
    """Accuracy on each problem, mean over the seeds."""
    all_seeds = [by_problem(made) for made in seeds.values()]
    return {problem: float(np.mean([one[problem] for one in all_seeds])) for problem in all_seeds[0]}


def make_cells(out: Path) -> list[Cell]:
    """One for each variant and ratio, in the order of `VARIANTS`."""
    found = read_rows(out)
    order = [FULL, BASE_NAME, *(name for name in VARIANTS if name != BASE_NAME)]
    cells = []
    for variant, cr in sorted(found, key=lambda key: (order.index(key[0]), key[1])):
        seeds = found[variant, cr]
        accuracy: NDArray[np.float64] = np.array(list(mean_over_seeds(seeds).values()))
        interval = wilson_interval(accuracy)
        base, difference = found.get((BASE_NAME, cr), {}), None
        if common := sorted(set(seeds) & set(base)) if variant not in (FULL, BASE_NAME) else []:
            of_base = mean_over_seeds({seed: base[seed] for seed in common})
            own = mean_over_seeds({seed: seeds[seed] for seed in common})
            difference = interval_of_differences(np.array([own[problem] - of_base[problem] for problem in of_base]))
        means = [100 * np.mean(list(by_problem(made).values())) for made in seeds.values()]
        cells.append(
            Cell(
                variant=variant,
                cr=cr,
                seeds=len(seeds),
                kl=float(np.mean([made.get("kl_hard", 0.0) for made in seeds.values()])),
                accuracy=100 * float(accuracy.mean()),
                low=100 * interval.low,
                high=100 * interval.high,
                spread=float(np.ptp(means)),
                difference=difference,
                realised=[float(np.mean([made["realised_cr"][task] for made in seeds.values()])) for task in TASKS],
                refused=sum(bool(made.get("refused")) for made in seeds.values()),
                tokens=float(np.mean([made.get("tokens", 0) for made in seeds.values()])),
            )
        )
    return cells


def markdown(cells: list[Cell]) -> str:
    """The table."""
    lines = [
        "| variant | CR | seeds | M tokens | KL | accuracy, 95 % | seeds apart | less base, 95 % | realised CR "
        "| refused |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        apart = f"{cell.spread:.1f}" if cell.seeds > 1 else "·"
        difference = "·"
        if cell.difference is not None:
            value, low, high, _ = cell.difference
            difference = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]".replace("-", "−")
        lines.append(
            f"| {cell.variant} | {cell.cr:g} | {cell.seeds} | {cell.tokens / 1e6:.1f} | {cell.kl:.4f} "
            f"| {cell.accuracy:.1f} [{cell.low:.1f}, {cell.high:.1f}] | {apart} | {difference} "
            f"| {', '.join(f'{ratio:.1f}' for ratio in cell.realised)} | {cell.refused} |"
        )
    return "\n".join(lines)


def draw(cells: list[Cell], file: Path) -> None:
    """Accuracy with intervals, a panel a ratio, the full cache and the base recipe as lines."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    full = next((cell for cell in cells if cell.variant == FULL), None)
    ratios = sorted({cell.cr for cell in cells if cell.variant != FULL})
    names = list(dict.fromkeys(cell.variant for cell in cells if cell.variant != FULL))
    figure, panels = plt.subplots(
        1, max(len(ratios), 1), figsize=(3.2 + 3.4 * len(ratios), 1.2 + 0.32 * len(names)), sharey=True, squeeze=False
    )
    for panel, cr in zip(panels[0], ratios, strict=False):
        of_ratio = {cell.variant: cell for cell in cells if cell.cr == cr and cell.variant != FULL}
        if full is not None:
            panel.axvline(full.accuracy, color="0.35", linestyle="--", linewidth=1, label="full cache")
        if BASE_NAME in of_ratio:
            panel.axvspan(of_ratio[BASE_NAME].low, of_ratio[BASE_NAME].high, color="tab:blue", alpha=0.12, linewidth=0)
        for name, cell in of_ratio.items():
            error = [[max(cell.accuracy - cell.low, 0)], [max(cell.high - cell.accuracy, 0)]]
            colour = "tab:blue" if name == BASE_NAME else "tab:orange" if name == "dmc" else "0.15"
            filled = "full" if cell.seeds > 1 else "none"
            panel.errorbar(
                cell.accuracy, names.index(name), xerr=error, fmt="o", color=colour, fillstyle=filled, capsize=2,
                markersize=5, linewidth=1,
            )  # fmt: skip
        panel.set_title(f"{cr:g}x", fontsize=10)
        panel.set_xlabel("accuracy, %, mean of three tasks", fontsize=9)
        panel.grid(axis="x", color="0.9")
        panel.set_axisbelow(True)
    panels[0][0].set_yticks(range(len(names)), names, fontsize=9)
    panels[0][0].set_ylim(len(names) - 0.5, -0.5)
    if full is not None:
        panels[0][0].legend(fontsize=8, loc="lower left")
    figure.tight_layout()
    figure.savefig(file, dpi=140)


# --- the command ---


@cache
def default_device() -> str:
    """CUDA if it is there."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def main(argv: list[str] | None = None) -> int:
    """Train, run one row, or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "row", "table"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=8, help="rows at a time")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="*", choices=tuple(VARIANTS), help="only these, and the full cache")
    parser.add_argument("--minutes", type=float, help="begin no row after so many")
    parser.add_argument("--device", help="cuda if it is there")
    parser.add_argument("--variant", choices=(FULL, *VARIANTS), default=BASE_NAME, help="of `row`")
    parser.add_argument("--seed", type=int, default=0, help="of `row`")
    parser.add_argument("--toy", action="store_true", help="a dozen steps of a few tokens, 10 problems")
    args = parser.parse_args(argv)
    args.device = args.device or (default_device() if args.what != "table" else "cpu")
    if args.what == "row":
        run_row(Row(args.variant, args.seed), args.out, toy=args.toy, device=args.device)
    elif args.what == "train":
        return 1 if run_rows(args) else 0
    else:
        cells = make_cells(args.out)
        print(markdown(cells))
        draw(cells, args.out / "ablations.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
