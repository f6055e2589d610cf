"""What it costs that an engine runs in a process of its own and is fed from another, on the built-in model.

Usage: python benchmarks/executor_overhead.py [--executor local|ray] [--rounds 5] [--engines 1]

One engine in this process and a pool generate the same chains in turn; the medians of rounds and their ratio are told,
and the share of the pool's engine-seconds in which an engine waited for a request while some were waiting. On a machine
whose cores the engines share, more engines than one say nothing about the ratio; the share holds.
"""

import argparse
from statistics import median
from time import perf_counter

from hyperscale import methods, models
from hyperscale.engines import registry
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.provider import EngineSpec
from hyperscale.executors import PooledEngine
from hyperscale.executors.executor import EngineResources, Executor
from hyperscale.executors.local import LocalExecutor
from hyperscale.executors.slot import EngineSlot
from hyperscale.utils.hub import silence_transformers


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executor", choices=("local", "ray"), default="local")
    parser.add_argument("--engines", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chains", type=int, default=64)
    options = parser.parse_args()
    silence_transformers()
    checkpoint = models.resolve("mini", "dms", 8).path
    spec = EngineSpec(checkpoint, methods.create("dms", cr=8), batch_size=8)
    provider = registry.get("torch")
    requests = [Request(f"p{i}", 0, tuple(range(5, 45 + i % 30)), 200 + 7 * (i % 40)) for i in range(options.chains)]
    requests.sort(key=lambda request: -request.L)
    alone = EngineSlot().engine(provider, spec, lambda: spec)
    executor: Executor
    if options.executor == "ray":
        from hyperscale.executors.ray import RayExecutor

        executor = RayExecutor(EngineResources(cpus=1))
    else:
        executor = LocalExecutor(EngineResources(cpus=1), options.engines)
    pool = PooledEngine(executor, options.engines)
    pool.use(provider, spec, spec)
    seconds: dict[str, list[float]] = {"in this process": [], f"{options.executor}, {options.engines}": []}
    list(pool.generate(requests[:8], Sampling()))  # starts the engines
    idle = pool.idle_seconds
    for _ in range(options.rounds):
        for name, engine in zip(seconds, (alone, pool), strict=True):
            start = perf_counter()
            assert len(list(engine.generate(requests, Sampling()))) == len(requests)
            seconds[name].append(perf_counter() - start)
    first, second = map(median, seconds.values())
    for name, values in seconds.items():
        print(f"{name:<20} {median(values):8.2f} s ({min(values):.2f} to {max(values):.2f})")
    waited = (pool.idle_seconds - idle) / (sum(seconds[f"{options.executor}, {options.engines}"]) * options.engines)
    print(f"pool / in this process {second / first:.3f}; engines waited {waited:.3%} of their time while chains waited")
    pool.close()


if __name__ == "__main__":
    main()
