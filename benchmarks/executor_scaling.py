"""How 1 to 256 engines share the chains of a run, by the dispatcher that runs use, in simulated time.

Usage: python benchmarks/executor_scaling.py [--chains 8000] [--batch 32] [--samples RUN/samples.jsonl] [--json FILE]

An engine makes a step in ``a + b * n`` for n chains in flight: weights are read once a step, the cache once a chain.
Chains take a number of tokens drawn from a lognormal distribution (median 6,000, cut at 32,768), or those of a run.
A request that is asked for takes a while to arrive. What is told is the speedup over one engine, the share of that
which is lost, and to what: *tail*, when others are done and an engine still works; *small batches*, when chains are
too few to fill the batches; *waiting*, when an engine has room, and chains wait elsewhere.

Three ways to hand out are compared: a fixed part for each engine from the start, as they come, and longest expected
first, where what is expected of a problem is off by a factor with a standard deviation of 1.5 (log).
"""

import argparse
import heapq
import json
import math
import random
from pathlib import Path
from typing import NamedTuple

from hyperscale.engines.base import Request
from hyperscale.executors.dispatcher import Dispatcher

ENGINES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STEP_BASE, STEP_CHAIN = 0.012, 0.0003  # seconds: as measured for a 7 B model on one H200, within a factor of two
LATENCY = 0.002  # seconds from a finished chain to the next request's arrival


class Outcome(NamedTuple):
    """What a simulation gave.

    Attributes:
        seconds: Until the last chain is done.
        waiting: Engine-seconds with room for a chain while some were waiting.
        tail: Engine-seconds without any chain before the end.
    """

    seconds: float
    waiting: float
    tail: float


class _Engine:
    """An engine in simulated time: all its chains get their tokens at one pace."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.running: list[tuple[float, str, int]] = []  # finishing place on the engine's own count of tokens
        self.buffer: list[Request] = []
        self.due: list[list[Request]] = []  # on their way
        self.count, self.time = 0.0, 0.0

    def advance(self, now: float) -> None:
        """Let tokens come until now."""
        if self.running:
            self.count += (now - self.time) / self.pace
        self.time = now

    @property
    def pace(self) -> float:
        """Seconds of a step."""
        return STEP_BASE + STEP_CHAIN * len(self.running)

    def admit(self, lengths: dict[tuple[str, int], int]) -> None:
        """Fill the batch from what is here."""
        while self.buffer and len(self.running) < self.capacity:
            request = self.buffer.pop(0)
            length = lengths[request.problem, request.chain]
            heapq.heappush(self.running, (self.count + length, request.problem, request.chain))

    def next_end(self) -> float:
        """When the next chain is done."""
        return self.time + (self.running[0][0] - self.count) * self.pace if self.running else math.inf


def simulate(
    order: list[Request], lengths: dict[tuple[str, int], int], engines: int, capacity: int, fixed: bool
) -> Outcome:
    """Run all chains through so many engines."""
    parts = [order[i::engines] for i in range(engines)] if fixed else []
    dispatchers = [Dispatcher(part, capacity) for part in parts] if fixed else [Dispatcher(order, capacity)] * engines
    pool = [_Engine(capacity) for _ in range(engines)]
    sharing = 1 if fixed else engines
    events: list[tuple[float, int, int, str]] = []  # time, number, engine, what
    number, now, waiting, idle_since = 0, 0.0, 0.0, [0.0] * engines
    version = [0] * engines

    def plan(i: int) -> None:
        nonlocal number
        version[i] += 1
        number += 1
        if (end := pool[i].next_end()) < math.inf:
            heapq.heappush(events, (end, number, i, f"end {version[i]}"))

    def ask(askers: list[int]) -> None:
        nonlocal number
        taken: dict[int, list[Request]] = {i: [] for i in askers}
        while askers:
            for i in list(askers):
                more = dispatchers[i].take(i, sharing)
                taken[i] += more
                if not more:
                    askers = [other for other in askers if other != i]
        for i, requests in taken.items():
            if requests:
                pool[i].due.append(requests)
                number += 1
                heapq.heappush(events, (now + LATENCY, number, i, "arrive"))

    ask(list(range(engines)))
    while events:
        time, _, i, what = heapq.heappop(events)
        engine = pool[i]
        if what.startswith("end") and what != f"end {version[i]}":
            continue  # the pace has changed since
        room = engine.capacity - len(engine.running)
        if room and dispatchers[i].has_waiting:
            waiting += (time - engine.time) * room / engine.capacity
        now = time
        engine.advance(now)
        if what == "arrive":
            engine.buffer += engine.due.pop(0)
        else:
            _, problem, chain = heapq.heappop(engine.running)
            dispatchers[i].finish(i, problem, chain)
            ask([i])
        engine.admit(lengths)
        if engine.running:
            idle_since[i] = math.nan
        elif math.isnan(idle_since[i]):
            idle_since[i] = now
        plan(i)
    tail = sum(now - since for since in idle_since if not math.isnan(since))
    return Outcome(now, waiting, tail)


def draw_lengths(chains: int, rng: random.Random, samples: Path | None) -> dict[tuple[str, int], int]:
    """Tokens of eight chains of each problem: a problem's have a length in common."""
    if samples is not None:
        measured = [json.loads(line) for line in samples.read_text().splitlines()]
        tokens = [int(values["tokens"]) for values in measured]
        return {(f"{i}", 0): rng.choice(tokens) for i in range(chains)}
    lengths = {}
    for problem in range(max(1, chains // 8)):
        median = 6000 * math.exp(rng.gauss(0, 0.6))
        for chain in range(8):
            lengths[f"{problem}", chain] = min(32768, max(16, int(median * math.exp(rng.gauss(0, 0.45)))))
    return lengths


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--samples", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rng = random.Random(0)
    lengths = draw_lengths(options.chains, rng, options.samples)
    requests = [Request(problem, chain, (1,), 32768) for problem, chain in lengths]
    mean_of = {}
    for (problem, _), length in lengths.items():
        mean_of.setdefault(problem, []).append(length)
    expected = {p: sum(v) / len(v) * math.exp(rng.gauss(0, math.log(1.5))) for p, v in mean_of.items()}
    orders = {
        "fixed parts": (requests, True),
        "as they come": (requests, False),
        "longest first": (sorted(requests, key=lambda request: -expected[request.problem]), False),
    }
    rows = []
    print(f"{len(requests)} chains, {sum(lengths.values()) / len(lengths):,.0f} tokens each, batch {options.batch}")
    print(f"{'hand-out':<14} {'engines':>7} {'speedup':>8} {'efficiency':>10} {'tail':>6} {'waiting':>8}")
    for name, (order, fixed) in orders.items():
        alone = simulate(requests, lengths, 1, options.batch, False).seconds
        for engines in ENGINES:
            outcome = simulate(order, lengths, engines, options.batch, fixed)
            total = outcome.seconds * engines
            row = {
                "hand_out": name,
                "engines": engines,
                "speedup": alone / outcome.seconds,
                "efficiency": alone / total,
                "tail": outcome.tail / total,
                "waiting": outcome.waiting / total,
            }
            rows.append(row)
            print(
                f"{name:<14} {engines:>7} {row['speedup']:>8.1f} {row['efficiency']:>10.1%} {row['tail']:>6.1%} "
                f"{row['waiting']:>8.2%}"
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
