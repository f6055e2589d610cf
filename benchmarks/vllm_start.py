"""Times the start of vLLM: imports, the engine, its first tokens, changes of methods, a step, and the end.

Each way of preparing it has a process of its own, twice: what the first leaves in caches on disk the second finds.
A small model's engine shares that process unless its code is compiled; --own gives it one of its own, which imports
vLLM once more and decodes while the first one handles what was decoded.

python benchmarks/vllm_start.py --device cuda --compilation none,graphs,full
python benchmarks/vllm_start.py --device cuda --compilation graphs --own
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

METHODS = (("window", 4.0), ("tova", 4.0))
COLUMNS = ("imports", "start", "first 8 tokens", "to tova", "back", "ms a step", "close")


def main() -> None:
    """Run every way in a process of its own, and print a table of seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--compilation", default="none,graphs,full", help="of these, in turn")
    parser.add_argument("--chains", type=int, default=32)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--own", action="store_true", help="a process of vLLM's own, whatever is prepared")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments, arguments.one)))
        return
    print(f"{'':10}{''.join(f'{column:>16}' for column in COLUMNS)}{'whole process':>16}")
    for level in arguments.compilation.split(","):
        for _ in range(arguments.times):
            begin = perf_counter()
            done = subprocess.run([*sys.orig_argv, "--one", level], stdout=subprocess.PIPE, text=True, check=True)
            seconds = json.loads(done.stdout.splitlines()[-1])
            cells = [seconds[column] for column in COLUMNS] + [perf_counter() - begin]
            print(f"{level:10}{''.join(f'{cell:16.1f}' for cell in cells)}", flush=True)


def measure(arguments: argparse.Namespace, level: str) -> dict[str, float]:
    """Seconds of each part, and milliseconds of a decode step, for an engine that is prepared in one way."""
    begin = perf_counter()
    from vllm import LLMEngine  # noqa: F401  # the heavy part of what the engine imports

    from hyperscale import methods, models
    from hyperscale.engines.base import Chain, Request, Sampling
    from hyperscale.engines.vllm.harness.compilation import LEVELS
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    seconds = {"imports": perf_counter() - begin}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        start = perf_counter()
        result = call()
        seconds[name] = perf_counter() - start
        return result

    arms = [methods.create(name, cr=cr) for name, cr in METHODS]
    checkpoint = models.resolve(arguments.model, *METHODS[0]).path
    on_gpu = arguments.device != "cpu"
    engine = timed(
        "start",
        lambda: VllmEngine(
            checkpoint,
            arms[0],
            methods=arms,
            batch_size=arguments.chains,
            device=arguments.device,
            dtype="bfloat16" if on_gpu else "float32",
            max_tokens=arguments.length + 100,
            own_process=True if arguments.own else None,
            compilation=next(name for name in LEVELS if name == level),
        ),
    )

    def generate(tokens: int) -> list[Chain]:
        requests = [Request(str(n), 0, tuple(range(5, 50)), tokens) for n in range(arguments.chains)]
        return list(engine.generate(requests, Sampling(temperature=0.8)))

    timed("first 8 tokens", lambda: generate(8))
    timed("to tova", lambda: engine.switch(arms[1]))
    timed("back", lambda: engine.switch(arms[0]))
    timed("all", lambda: generate(arguments.length))
    seconds["ms a step"] = 1000 * seconds["all"] / arguments.length
    timed("close", engine.close)
    return seconds


if __name__ == "__main__":
    main()
