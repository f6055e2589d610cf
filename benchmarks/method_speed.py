"""Decode speed of every method against the full cache, measured in turns within one run.

Every method decodes the same tokens, those of a chain of the model's own, from the same prompt to the same context,
with its rule in force all the way; then all are stepped in turns and timed. A round has at least as many steps as the
longest interval between two cuts, so that what a method does now and then is spread over the steps it serves. Printed
is, for each method, the time of a step over vanilla's of the same round, the median over rounds, and what it holds.

Usage: python benchmarks/method_speed.py [--threads 1] [--context 1000] [--batch 16] [--cr 8] [--methods dms,tova] …
The built-in model is used, with its DMS checkpoint; a DMC checkpoint comes from --retrofits. Vanilla is timed also with
a quantised cache.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from decode_speed import SAMPLING, WEIGHTS, NoText, endless

from hyperscale import methods
from hyperscale.engines.base import Request
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch import forward_pass
from hyperscale.engines.torch.batch import Batch
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import HyperscaleError
from hyperscale.kv.formats import AUTO, QUANTISED
from hyperscale.methods.core.base import Method
from hyperscale.utils.hub import silence_transformers

PROMPT = 100


@dataclass
class Runner:
    """A batch of chains under one method.

    Attributes:
        name: As printed.
        rounds: Milliseconds of a step, mean over a round, by round.
        entries: Live entries after each timed step, mean over chains, layers and heads.
    """

    name: str
    model: Any
    batch: Batch
    waiting: Any
    rounds: list[float]
    entries: list[float]

    @classmethod
    def of(cls, name: str, model: Any, method: Method, ids: tuple[int, ...], size: int, kv_dtype: str) -> "Runner":
        """Chains that are forced to be ``ids``, whose first `PROMPT` tokens are the prompt."""
        engine = TorchEngine(
            model,
            NoText(model.config.vocab_size),
            method,
            batch_size=size,
            device=model.device,
            kv_dtype=kv_dtype,
        )
        forced = ids[PROMPT:]
        requests = [Request("speed", chain, ids[:PROMPT], len(forced), forced_ids=forced) for chain in range(size)]
        return cls(name, model, engine.start_batch(SAMPLING), iter(requests), [], [])

    def step(self) -> float:
        """Milliseconds of a step; the engine waits for the device once in it."""
        started = time.perf_counter()
        with torch.inference_mode(), forward_pass.use_own_attention(self.model):
            self.batch.advance(self.waiting)
        return 1e3 * (time.perf_counter() - started)

    def held(self) -> float:
        """Live entries of a row, mean over all."""
        cache = self.batch.cache
        return cache.live_entries / (cache.chains * cache.layers * cache.kv_heads)


def runners(
    wanted: Sequence[str], cr: float, ids: tuple[int, ...], size: int, device: str, retrofits: Path | None
) -> list[Runner]:
    """Vanilla, the other methods, and vanilla with quantised caches; what cannot run here is named and left out."""
    base = endless(load_model(WEIGHTS / "base", device=device)[0])
    models = {None: base, "dms": endless(load_model(WEIGHTS / f"dms{cr:g}", device=device)[0])}
    if retrofits:
        models["dmc"] = endless(load_model(retrofits / f"dmc{cr:g}", device=device)[0])
    made = []
    for name in ("vanilla", *(name for name in wanted if name != "vanilla")):
        try:
            method = methods.create(name, cr=1 if name == "vanilla" else cr)
            model = models.get(methods.retrofit_kind(name))
            if model is None:
                print(f"{name} is left out: it needs --retrofits")
                continue
            made.append(Runner.of(name, model, method, ids, size, AUTO))
        except HyperscaleError as error:
            print(f"{name} is left out: {error}")
    full = methods.create("vanilla", cr=1)
    return made + [Runner.of(f"vanilla, {kind}", base, full, ids, size, kind) for kind in QUANTISED]


def interval(wanted: Sequence[str], cr: float) -> int:
    """The longest interval between two cuts of any of the methods, in tokens."""
    params = [methods.create(name, cr=1 if name == "vanilla" else cr).params() for name in wanted]
    return max(int(each.get("interval", 1)) for each in params)


def context(tokens: int, device: str) -> tuple[int, ...]:
    """A chain of the built-in model's own, so that trained gates see what they were trained on."""
    model = endless(load_model(WEIGHTS / "base", device=device)[0])
    engine = TorchEngine(model, NoText(model.config.vocab_size), methods.create("vanilla", cr=1), device=device)
    prompt = tuple(range(1, 9))
    (chain,) = engine.generate([Request("context", 0, prompt, tokens)], SAMPLING)
    return (*prompt, *chain.token_ids)[:tokens]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--context", type=int, default=1000, help="tokens of a sequence when timing begins")
    parser.add_argument("--batch", type=int, default=16, help="chains")
    parser.add_argument("--cr", type=float, default=8, help="compression ratio; 2, 4 and 8 have a DMS checkpoint")
    parser.add_argument("--retrofits", type=Path, help="folder with dmc2, dmc4 or dmc8 (docs/methods.md)")
    parser.add_argument("--steps", type=int, default=32, help="least steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--methods", default=",".join(methods.available()), help="names with commas between them")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    silence_transformers()
    wanted = args.methods.split(",")
    steps = max(args.steps, interval(wanted, args.cr))
    if args.context <= PROMPT:
        parser.error(f"--context must be more than the {PROMPT} tokens of the prompt")
    ids = context(args.context + steps * args.rounds + 2, args.device)
    made = runners(wanted, args.cr, ids, args.batch, args.device, args.retrofits)
    for _ in range(args.context - PROMPT):
        for runner in made:
            runner.step()
    for _ in range(args.rounds):
        spent = dict.fromkeys((runner.name for runner in made), 0.0)
        for _ in range(steps):
            for runner in made:
                spent[runner.name] += runner.step()
        for runner in made:
            runner.rounds.append(spent[runner.name] / steps)
            runner.entries.append(runner.held())
    full = made[0]
    contexts = f"context {args.context} to {args.context + steps * args.rounds}"
    print(f"built-in model, {args.device}, {args.threads} threads, torch {torch.__version__}")
    print(f"batch {args.batch}, {contexts}, CR {args.cr:g}, {args.rounds} rounds of {steps} steps")
    print(f"{'method':<16}{'ms a step':>10}{'steps/s':>9}{'time / vanilla':>16}{'least':>7}{'most':>7}{'entries':>9}")
    for runner in made:
        ratios = [mine / theirs for mine, theirs in zip(runner.rounds, full.rounds, strict=True)]
        spent_each = statistics.median(runner.rounds)
        print(
            f"{runner.name:<16}{spent_each:>10.2f}{1e3 / spent_each:>9.1f}{statistics.median(ratios):>16.2f}"
            f"{min(ratios):>7.2f}{max(ratios):>7.2f}{statistics.mean(runner.entries):>9.0f}"
        )


if __name__ == "__main__":
    main()
