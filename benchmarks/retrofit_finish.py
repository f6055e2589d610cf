"""What the last steps of a retrofit do to it, from one and the same state: a trial on the built-in model, on a CPU.

Usage: python benchmarks/retrofit_finish.py --gate borrowed            # 20 minutes on one core
       python benchmarks/retrofit_finish.py --gate separate --finishes hard
       python benchmarks/retrofit_finish.py --toy                      # a few steps, to try the program

The model is retrofitted with noise up to --cr in rows of 768 tokens, two a step. From there every finish takes --steps
more:

soft           with noise: gates and weights go on, the rate falls to 0
hard           the gates of inference decide, weights train; neurons are held to the ratio by the compression loss
hard, not held the same without that loss
hard, a tenth  the same without that loss, at a tenth of the rate

The table has KL(student || teacher) in nats a token on four held-out batches, under the gates of inference and of
training, before and after, and the share evicted under the former.
"""

import argparse
import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch

import hyperscale.retrofit.distillation as distillation
from hyperscale.engines.loading import load_model
from hyperscale.mini.model import WEIGHTS
from hyperscale.mini.train import SHIPPED
from hyperscale.mini.training.data import make_batch
from hyperscale.retrofit.packing import TrainingBatch
from hyperscale.retrofit.settings import Recipe
from hyperscale.retrofit.trainer import Retrofit

LENGTH, ROWS, HELD_OUT = 768, 2, 4
FINISHES = ("soft", "hard", "hard, not held", "hard, a tenth")


class _Reached(Exception):  # noqa: N818  # no error: the ratio is reached
    """Ends a training before its finish."""


def make_retrofit(recipe: Recipe) -> Retrofit:
    """The built-in base, about to be trained."""
    base, _ = load_model(str(WEIGHTS / "base"), device="cpu", dtype=torch.float32)
    return Retrofit(base, recipe)


def batches(first: int) -> Iterator[TrainingBatch]:
    """Those from a step on."""
    return (make_batch(f"x-{number}", ROWS, LENGTH) for number in itertools.count(first))


def measure(retrofit: Retrofit, held_out: list[TrainingBatch]) -> dict[str, float]:
    """KL under both kinds of gates, and the share evicted under those of inference."""
    before = retrofit.gated.mode
    found: dict[str, float] = {}
    for mode in ("noisy", "hard"):
        retrofit.gated.mode = mode  # type: ignore[assignment]
        with torch.no_grad():
            told = [retrofit.distillation.divergence(batch) for batch in held_out]
        found[mode] = sum(float(kl) for kl, _ in told) / len(told)
        found["evicted"] = sum(float(torch.stack([a.mean() for a in alphas]).mean()) for _, alphas in told) / len(told)
    retrofit.gated.mode = before
    return found


def train_to_the_ratio(recipe: Recipe) -> dict[str, Any]:
    """The state of a training whose schedule has reached the ratio."""
    retrofit = make_retrofit(recipe)
    kept: dict[str, Any] = {}

    def keep() -> None:
        if retrofit.phase == "noisy" and retrofit.steps == recipe.steps_until(recipe.crs[-1]):
            kept.update(copy.deepcopy(retrofit.state_dict()))
            raise _Reached

    retrofit.after_step = keep
    try:
        list(retrofit.run(batches(0)))
    except _Reached:
        return kept
    raise AssertionError("the training passes the ratio")


def finish(name: str, recipe: Recipe, state: dict[str, Any]) -> Retrofit:
    """Go on from the state to the end."""
    changed = recipe.changed(finish="soft" if name == "soft" else "hard")
    if name == "hard, a tenth":
        changed = changed.changed(lr=recipe.lr / 10)
    retrofit = make_retrofit(changed)
    retrofit.load_state_dict(copy.deepcopy(state))
    real = getattr(distillation, "compression_loss")  # noqa: B009
    if name in ("hard, not held", "hard, a tenth"):

        def not_held(*args: Any, held: bool = False) -> Any:
            missing, share = real(*args)
            return missing * (not held), share

        setattr(distillation, "compression_loss", not_held)  # noqa: B010
    try:
        list(retrofit.run(batches(state["place"]["batches_read"])))
    finally:
        setattr(distillation, "compression_loss", real)  # noqa: B010
    return retrofit


def main() -> None:
    """Train once, finish in each way, print a line of the table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gate", choices=("borrowed", "separate", "dmc"), default="borrowed")
    parser.add_argument("--cr", type=float, default=4.0)
    parser.add_argument("--finishes", default=";".join(FINISHES), help="with semicolons")
    parser.add_argument("--steps", type=int, default=90, help="of a finish")
    parser.add_argument("--unit", type=float, default=80.0, help="steps of the training for a unit of the ratio")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--toy", action="store_true")
    arguments = parser.parse_args()
    if arguments.toy:
        arguments.steps, arguments.unit, arguments.cr = 2, 2.0, 2.0
    if unknown := set(arguments.finishes.split(";")) - set(FINISHES):
        parser.error(f"no finish {sorted(unknown)[0]}")
    torch.set_num_threads(arguments.threads)
    kind = {"method": "dmc"} if arguments.gate == "dmc" else {"gate": arguments.gate}
    fade = 2 if arguments.toy else 60
    recipe = SHIPPED.changed(
        crs=(arguments.cr,),
        steps_per_unit=arguments.unit,
        hard_steps=(arguments.steps,),
        warmup=5,
        fade_steps=fade,
        **kind,
    )
    held_out = [make_batch(f"held-out-{number}", ROWS, LENGTH) for number in range(HELD_OUT)]
    state = train_to_the_ratio(recipe)
    before = make_retrofit(recipe)
    before.load_state_dict(copy.deepcopy(state))
    print("| finish | steps | KL, gates of inference | KL, gates of training | evicted |\n|---|---|---|---|---|")
    print_row("none yet", 0, measure(before, held_out))
    for name in arguments.finishes.split(";"):
        print_row(name, arguments.steps, measure(finish(name, recipe, state), held_out))


def print_row(name: str, steps: int, found: dict[str, float]) -> None:
    """A line of the table."""
    print(f"| {name} | {steps} | {found['hard']:.3f} | {found['noisy']:.3f} | {found['evicted']:.3f} |", flush=True)


if __name__ == "__main__":
    main()
