"""Chains per second of a run's engines side by side, and of GPUs that share one, on models of real shapes.

Usage: python benchmarks/engines_side_by_side.py --shape qwen2.5-1.5b --arrangements 1x1,2x1,1x2 --out scaling.json

An arrangement ENGINESxGPUS is a pool of so many engines of vLLM as `hyperscale run` has it, in processes of their own,
each on so many GPUs. Every arrangement generates --chains chains for each of its engines: prompts of --prompt tokens,
new ones from half of --tokens to one and a half times as many, longest first as in a run, at most --most at once in an
engine. (Chains of one length would end all at once, and their last wave be a part of one in some engines.) A round
before it, untimed, starts the engines. Weights are random. "dms" decides by a hash of which 1 / CR keep an entry, which
costs what DMS costs and says nothing about accuracy.

"of the first" is chains per second over those of the first arrangement of the same method. "waited" is the part of the
engines' time in which they waited for a request while some were waiting. "at once", "KV GiB" and "preempted" are of
all engines together: the most requests that ran at once, the most of the cache that they held, and how many gave up
their place for others.
"""

import argparse
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from dummy_weights import DummyWeights, write_folder
from vllm_throughput import SHAPES, shape

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.provider import EngineSpec
from hyperscale.executors import PooledEngine
from hyperscale.executors.executor import EngineResources
from hyperscale.executors.local import LocalExecutor, count_cores


@dataclass
class Measurement:
    """One arrangement of engines.

    Attributes:
        method: What they run.
        arrangement: Engines x GPUs of each.
        start_s: Until every engine had generated something.
        seconds: Of all chains.
        chains_per_s: Finished ones.
        tokens_per_s: New tokens.
        waited: See above.
        at_once: Most requests that ran at once, in all engines together.
        kv_gib: GiB of the cache that they held at most, of `cache_gib`.
        preemptions: Requests that gave up their place for others.
    """

    method: str
    arrangement: str
    start_s: float
    seconds: float
    chains_per_s: float
    tokens_per_s: float
    waited: float
    at_once: int = 0
    kv_gib: float = 0.0
    cache_gib: float = 0.0
    preemptions: int = 0


def measure(arguments: argparse.Namespace, method: str, arrangement: str) -> Measurement:
    """Start a pool, run the chains, and end it."""
    engines, gpus = map(int, arrangement.split("x"))
    options = {"method": "hashed", "cr": arguments.cr, "window": arguments.window} if method == "dms" else None
    # Of the harness's methods, window is one that needs no gates; the options replace it by verdicts of a hash.
    made = methods.create("vanilla", cr=1) if method == "vanilla" else methods.create("window", cr=arguments.cr)
    spec = EngineSpec(
        arguments.folder,
        made,
        batch_size=arguments.most,
        device="cpu" if arguments.toy else "cuda",
        dtype="float32" if arguments.toy else "bfloat16",
        gpu_memory=arguments.memory,
        max_tokens=arguments.prompt + 2 * arguments.tokens,
        compilation="none" if arguments.toy else "full",
        tensor_parallel=gpus,
    )
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = names.split(",") if names else [str(gpu) for gpu in range(engines * gpus)]
    resources = EngineResources(cpus=max(1, count_cores() // engines), gpus=0 if arguments.toy else gpus)
    pool = PooledEngine(LocalExecutor(resources, engines, visible), engines)
    usage = Path(arguments.folder) / f"usage-{method}-{arrangement}"
    usage.mkdir()
    pool.use(DummyWeights(options, str(usage)), spec, spec)

    def run(lengths: list[int], first: int, prompt_length: int = arguments.prompt) -> tuple[float, int]:
        """Seconds, and new tokens."""
        count = len(lengths)
        requests = [
            Request(f"p{i}", 0, prompt(i, prompt_length), tokens) for i, tokens in enumerate(lengths, start=first)
        ]
        start = perf_counter()
        chains = list(pool.generate(requests, Sampling()))
        assert len(chains) == count, pool.faults
        return perf_counter() - start, sum(len(chain.token_ids) for chain in chains)

    count = engines * arguments.chains
    # Its prompts are short, so that long ones are not prefilled twice.
    start_s, _ = run([8] * engines * arguments.most, 0, min(arguments.prompt, 512))
    spread = [arguments.tokens // 2 + i * 389 % arguments.tokens for i in range(count)]
    idle = pool.idle_seconds
    seconds, tokens = run(sorted(spread, reverse=True), engines * arguments.most)
    waited = (pool.idle_seconds - idle) / (seconds * engines)
    pool.close()
    told = read_usage(usage)
    return Measurement(
        method,
        arrangement,
        start_s,
        seconds,
        count / seconds,
        tokens / seconds,
        waited,
        int(told["requests"]),
        told["kv_gib"],
        told["cache_gib"],
        int(told["preemptions"]),
    )


def read_usage(folder: Path) -> dict[str, float]:
    """What the engines wrote of their last chains, added up."""
    last: dict[str, tuple[int, Path]] = {}
    for file in folder.glob("*.json"):
        process, _, number = file.stem.partition("-")
        last[process] = max(last.get(process, (-1, file)), (int(number), file))
    told = [json.loads(file.read_text(encoding="utf-8")) for _, file in last.values()]
    return {name: sum(each[name] for each in told) for name in ("requests", "kv_gib", "cache_gib", "preemptions")}


def prompt(number: int, length: int) -> tuple[int, ...]:
    """Tokens of a prompt; no two are alike."""
    return tuple((7 * i + 13 * number * (i % 31) + number) % 500 for i in range(length))


def table(measurements: list[Measurement]) -> str:
    """A line for each."""
    lines = [
        f"{'method':<8}  {'engines x GPUs':>14}  {'chains/s':>8}  {'tokens/s':>8}  {'of the first':>12}  "
        f"{'at once':>7}  {'KV GiB':>14}  preempted  waited"
    ]
    first: dict[str, float] = {}
    for found in measurements:
        ratio = found.chains_per_s / first.setdefault(found.method, found.chains_per_s)
        lines.append(
            f"{found.method:<8}  {found.arrangement:>14}  {found.chains_per_s:>8.3f}  {found.tokens_per_s:>8.0f}  "
            f"{ratio:>12.3f}  {found.at_once:>7}  {found.kv_gib:>6.1f} of {found.cache_gib:>4.0f}  "
            f"{found.preemptions:>9}  {found.waited:.2%}  (start {found.start_s:.0f} s, chains {found.seconds:.1f} s)"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure all arrangements, one after another; what is known is written at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-1.5b")
    parser.add_argument("--layers", type=int, default=0, help="all of the real model's, or fewer")
    parser.add_argument("--arrangements", default="1x1,2x1", help="engines x GPUs of each, comma-separated")
    parser.add_argument("--methods", default="vanilla,dms")
    parser.add_argument("--chains", type=int, default=192, help="for each engine")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--most", type=int, default=64, help="chains of an engine at once")
    parser.add_argument("--cr", type=float, default=8)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--memory", type=float, default=0.9)
    parser.add_argument("--toy", action="store_true", help="a tiny model on the CPU")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    measurements: list[Measurement] = []
    with tempfile.TemporaryDirectory() as folder:
        arguments.folder = folder
        sizes: dict[str, Any] = shape(arguments)
        write_folder(Path(folder), SHAPES[arguments.shape][0], sizes)
        for method in arguments.methods.split(","):
            for arrangement in arguments.arrangements.split(","):
                measurements.append(measure(arguments, method, arrangement))
                print(table(measurements[-1:]).splitlines()[-1], flush=True)
                if arguments.out:
                    found: dict[str, Any] = {
                        "asked": {k: v for k, v in vars(arguments).items() if k not in ("out", "folder")}
                    }
                    found |= {"measurements": [asdict(each) for each in measurements]}
                    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(measurements))


if __name__ == "__main__":
    main()
