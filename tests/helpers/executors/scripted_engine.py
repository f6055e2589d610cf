"""An engine that needs no model and does what the name of a problem says: for what becomes of engines that fail.

It is imported by the processes of a pool too, through ``PYTHONPATH``. A problem named

- ``kill…`` ends the process as the kernel does when memory is short,
- ``raise…`` raises an error that nobody expects,
- ``exit…`` ends as a library that calls `sys.exit`,
- ``fork…`` leaves a child behind and ends the process as above,
- ``refuse…`` raises an `EngineError`, ``model…`` a `ModelError`,
- ``hang…`` makes no step any more,
- ``meet…`` makes none until a second engine has started,
- ``hold…`` makes none until the file ``go`` is in the folder that is the spec's checkpoint,
- ``once…`` ends the first process that meets it, by a file in the folder that is the spec's checkpoint;

any other takes ``L`` steps of a millisecond. Several chains are in flight, as in a real engine.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from hyperscale.engines.base import Chain, Engine, Request, Sampling
from hyperscale.engines.provider import EngineProvider, EngineSpec
from hyperscale.errors import EngineError, ModelError
from hyperscale.kv.trace import KVTrace


class ScriptedProvider(EngineProvider):
    name = "scripted"

    def build(self, spec: EngineSpec, weights: Any) -> "ScriptedEngine":
        folder = Path(spec.checkpoint)
        with (folder / "started").open("a") as file:
            file.write(f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
        if (folder / "broken").exists():
            raise ModelError("the weights are broken")
        return ScriptedEngine(folder, spec.batch_size)


def spec_of(folder: str | Path, batch_size: int = 1) -> EngineSpec:
    """A spec that names no method: a scripted engine reads none, and its process then loads no torch."""
    return EngineSpec(str(folder), cast("Any", None), batch_size=batch_size)


def provider_of_this_process(monkeypatch: Any) -> ScriptedProvider:
    """One that other processes cannot read: its module, ``of_this_process_alone``, is in none of their folders."""
    module = ModuleType("of_this_process_alone")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.Provider = type("Provider", (ScriptedProvider,), {"__module__": module.__name__})
    return module.Provider()


class ScriptedEngine(Engine):
    name = "scripted"

    def __init__(self, folder: Path, batch_size: int) -> None:
        self._folder, self._batch_size = folder, batch_size

    def generate(self, requests: Iterable[Request], sampling: Sampling, watch: Any = None) -> Iterator[Chain]:
        queue, running = iter(requests), list[list[Any]]()
        while True:
            while len(running) < self._batch_size and (request := next(queue, None)) is not None:
                self._meet(request)
                running.append([request, 0])
            if not running:
                return
            time.sleep(0.001)
            self.steps += 1
            for entry in list(running):
                entry[1] += 1
                if entry[1] == entry[0].L:
                    running.remove(entry)
                    yield chain_of(entry[0], sampling)

    def _meet(self, request: Request) -> None:
        kind = request.problem
        flag = self._folder / f"met {request.problem}"
        if kind.startswith("kill") or (kind.startswith("once") and not flag.exists()):
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if kind.startswith("fork"):
            if not os.fork():
                time.sleep(120)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        if kind.startswith("exit"):
            raise SystemExit(3)
        if kind.startswith("raise"):
            raise ZeroDivisionError("of a library")
        if kind.startswith("refuse"):
            raise EngineError("cannot do this")
        if kind.startswith("model"):
            raise ModelError("no such layer")
        while kind.startswith("hang"):
            time.sleep(1)
        while kind.startswith("meet") and len((self._folder / "started").read_text().splitlines()) < 2:
            time.sleep(0.01)
        while kind.startswith("hold") and not (self._folder / "go").exists():
            time.sleep(0.01)


def chain_of(request: Request, sampling: Sampling) -> Chain:
    """The chain that any engine gives."""
    ids = tuple((sum(request.prompt_ids) + request.chain + sampling.seed + i) % 7 for i in range(request.L))
    trace = KVTrace((request.L,), (float(request.L),), (1.0,), (request.L,), (0.0,), (0,))
    return Chain(request.problem, request.chain, len(request.prompt_ids), ids, "", "length", 0.0, trace, 0.0)
