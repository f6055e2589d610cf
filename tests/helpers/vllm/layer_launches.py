"""Launch the kernels of chunks in one layer after another, compiled for Hopper, and print how; nothing is computed.

Run as a program, without TRITON_INTERPRET; needs no GPU. Prints JSON:
- "steps": by name, of steps of three layers: the launches of each layer, those that share a `StepLaunches` ("shared")
  beside those of the same layer that are made anew ("anew"). A launch has its kernel's name, the number of the compiled
  kernel, its grid, its arguments, with addresses in place of tensors, how many of them were tensors ("tensors"), and
  whether Triton searched for the kernel by the arguments ("bound").
- "around": of three steps, likewise, the launches before and behind the layers, which all steps share.
- "lengths": of steps with awkward numbers of tokens, by how many bytes each of a plan's tensors lies past a multiple of
  16 ("past", by heads, tokens and requests), and the kernels that were compiled for the first of these steps ("first")
  and for the others.
"""

import itertools
import json
from types import SimpleNamespace

import torch
from compile_kernels import Hopper
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, PagedCache
from hyperscale.engines.vllm.kernels.chunk.append import append_chunks
from hyperscale.engines.vllm.kernels.chunk.attention import chunk_attention
from hyperscale.engines.vllm.kernels.chunk.plan import ReadCounts, Verdicts, plan_chunks
from hyperscale.engines.vllm.kernels.chunk.plan_storage import PlanStorage
from hyperscale.engines.vllm.kernels.chunk.write import store_survivors
from hyperscale.engines.vllm.kernels.decode.step_report import gather_step_report
from hyperscale.engines.vllm.kernels.step_launches import StepLaunches
from hyperscale.engines.vllm.kernels.table_changes import change_tables

LAYERS, HEADS, GROUP, DIM, PAGE, BLOCKS, SLOTS = 3, 2, 2, 16, 16, 20, 4
TOKENS, REQUESTS = 150, 2
CPU = torch.device("cpu")


class NotedLaunches(Hopper):
    """A driver that notes launches instead of making them."""

    def __init__(self):
        self.launches, self.loaded, self.binding = [], [], False
        self.utils = self

    def get_device_properties(self, device):
        return {"max_shared_mem": 227 * 1024}

    def load_binary(self, name, binary, shared, device):
        self.loaded.append(name)
        number = len(self.loaded)
        return number, number, 32, 0, 1024  # module, function, registers, spills, threads

    def unload_module(self, module):
        pass

    def launcher_cls(self, source, metadata):
        def launch(x, y, z, stream, function, packed, about, enter, leave, *arguments):
            launch = {"kernel": metadata.name, "function": function, "grid": [x, y, z], "bound": self.binding}
            tensors = [isinstance(each, torch.Tensor) for each in arguments].count(True)
            self.launches.append({**launch, "tensors": tensors, "arguments": [address(each) for each in arguments]})

        return launch

    def mark_binding(self, run):
        def marked(*arguments, **options):
            self.binding = True
            try:
                return run(*arguments, **options)
            finally:
                self.binding = False

        return marked


def address(argument):
    return argument.data_ptr() if isinstance(argument, torch.Tensor) else argument


def ints(*shape):
    return torch.zeros(shape, dtype=torch.int32)


def some_tables(heads=HEADS):
    return SimpleNamespace(
        page_tokens=PAGE,
        slot_of_block=ints(BLOCKS),
        superblocks=ints(SLOTS, 9),
        num_superblocks=ints(SLOTS),
        pages_used=ints(SLOTS),
        page_table=ints(SLOTS, LAYERS, heads, 40),
        num_pages=ints(SLOTS, LAYERS, heads),
        lens=ints(SLOTS, LAYERS, heads),
        newest=ints(SLOTS, LAYERS, heads),
        expiry=ints(BLOCKS * LAYERS * heads, PAGE),
    )


def some_cache(heads=HEADS):
    return PagedCache.of(torch.zeros(BLOCKS, LAYERS * heads, PAGE, 2 * DIM, dtype=torch.bfloat16))


def some_chunks(requests=REQUESTS, longest=TOKENS - 20):
    return ChunkRequests(ints(requests), ints(requests + 1), ints(requests), longest)


def some_counts(tokens=TOKENS, heads=HEADS, requests=REQUESTS):
    return ReadCounts(ints(requests), torch.zeros(tokens, dtype=torch.int64).expand(heads, -1))


def some_step(tokens=TOKENS, heads=HEADS, requests=REQUESTS):
    """What the layers of a step share."""
    return SimpleNamespace(
        tables=some_tables(heads),
        cache=some_cache(heads),
        chunks=some_chunks(requests),
        counts=some_counts(tokens, heads, requests),
        storage=PlanStorage(LAYERS, heads, tokens, requests, CPU, counts=True),
        known_expiry=None,
    )


def some_tokens(tokens=TOKENS, heads=HEADS):
    """What is a layer's own."""
    return SimpleNamespace(
        queries=torch.zeros(tokens, heads * GROUP, DIM, dtype=torch.bfloat16),
        keys=torch.zeros(tokens, heads, DIM, dtype=torch.bfloat16),
        values=torch.zeros(tokens, heads, DIM, dtype=torch.bfloat16),
        verdicts=torch.zeros(tokens, heads, dtype=torch.bfloat16),
        out=torch.zeros(tokens, heads * GROUP, DIM, dtype=torch.bfloat16),
        log_sums=None,
        window=16,
        scale=0.1,
    )


def cut_keys(width, begin):
    """Keys and values as parts of rows of ``width`` numbers, which begin at number ``begin``."""
    size = HEADS * DIM
    rows = torch.zeros(2, TOKENS * width + begin, dtype=torch.bfloat16)[:, begin:].unflatten(1, (TOKENS, width))
    keys, values = rows[..., :size].unflatten(2, (HEADS, DIM)).unbind()
    return {"keys": keys, "values": values}


# What layers 1 and 2 of a step have otherwise than layer 0: of their own tensors, or of what is shared.
OWN = {
    "alike": dict,
    "alignment": lambda: cut_keys(HEADS * DIM, 2),
    "stride": lambda: cut_keys(HEADS * DIM + 16, 0),
    "type": lambda: {"verdicts": torch.zeros(TOKENS, HEADS)},
    "log sums": lambda: {"log_sums": torch.zeros(TOKENS, HEADS * GROUP)},
    "window and scale": lambda: {"window": 48, "scale": 0.2},
}
SHARED = {
    "tables": lambda: {"tables": some_tables()},
    "cache": lambda: {"cache": some_cache()},
    "chunks": lambda: {"chunks": some_chunks(longest=TOKENS - 90)},
    "counts": lambda: {"counts": some_counts()},
    "plan": lambda: {"storage": PlanStorage(LAYERS, HEADS, TOKENS, REQUESTS, CPU, counts=True)},
    "known expiries": lambda: {"known_expiry": ints(HEADS, TOKENS)},
}


def launch_layer(noted, step, layer, own, launches):
    """The launches of a layer."""
    noted.launches = []
    said = Verdicts(own.verdicts, own.window) if step.known_expiry is None else step.known_expiry
    tables, chunks = step.tables, step.chunks
    plan = plan_chunks(tables, layer, chunks, said, step.storage, step.counts, launches)
    of_tokens = (own.queries, own.keys, own.values, own.out)
    attention = (tables, step.cache, layer, chunks, plan, *of_tokens, own.scale)
    chunk_attention(*attention, log_sums=own.log_sums, launches=launches)
    store_survivors(tables, step.cache, layer, chunks, plan, own.keys, own.values, launches)
    append_chunks(tables, step.cache, layer, chunks, own.keys, own.values, launches)
    return noted.launches


def launch_step(noted, name):
    """Of each of its layers, launches that are shared, and the same made anew."""
    step, launches, layers = some_step(), StepLaunches(), []
    other = SimpleNamespace(**{**vars(step), **SHARED.get(name, dict)()})
    tensors = []  # kept, so that no two layers' have the same addresses
    for layer in range(LAYERS):
        own = some_tokens()
        if layer:
            vars(own).update(OWN.get(name, dict)())
        tensors.append(own)
        of_layer = (noted, other if layer else step, layer, own)
        layers.append({"shared": launch_layer(*of_layer, launches), "anew": launch_layer(*of_layer, None)})
    return layers


def launch_around(noted, step, tables, kept):
    """The launches before a step's layers, and behind them, with this step's own numbers."""
    noted.launches = []
    changes, out = torch.zeros(60, dtype=torch.int64), ints(4 * SLOTS + step)
    first_blocks = ints(step + 1, 7)[:, 0]
    change_tables(tables, changes, step, (step, 16 - step, 1), kept[0])
    gather_step_report(tables, None, out, first_blocks, kept[1])
    return noted.launches, (changes, out, first_blocks)


def launch_all_around(noted):
    """Of three steps, launches that all share, and the same made anew."""
    tables, kept, steps, tensors = some_tables(), (StepLaunches(), StepLaunches()), [], []
    tables.request_params = torch.zeros(SLOTS, 3, dtype=torch.int64)
    for step in range(3):
        shared, own = launch_around(noted, step, tables, kept)
        anew, others = launch_around(noted, step, tables, (None, None))
        tensors += [own, others]  # kept, so that no two steps' have the same addresses
        steps.append({"shared": shared, "anew": anew})
    return steps


def launch_lengths(noted):
    """Steps of awkward sizes: where their plans lie, and what is compiled for them."""
    past, compiled = {}, []
    lengths = 4095, 4094, 4096, 900  # of the last, a plan of one request has 16 blocks
    for heads, tokens, requests in itertools.product((2, 3), lengths, (1, 2, 3)):
        step, before = some_step(tokens, heads, requests), len(noted.loaded)
        launch_layer(noted, step, 0, some_tokens(tokens, heads), StepLaunches())
        parts = vars(step.storage.plan())
        past[f"{heads} {tokens} {requests}"] = {name: part.data_ptr() % 16 for name, part in parts.items()}
        compiled.append(noted.loaded[before:])
    return {"past": past, "first": compiled[0], "others": list(itertools.chain(*compiled[1:]))}


if __name__ == "__main__":
    noted = NotedLaunches()
    driver.set_active(noted)
    JITFunction.run = noted.mark_binding(JITFunction.run)
    lengths = launch_lengths(noted)
    around = launch_all_around(noted)
    steps = {name: launch_step(noted, name) for name in (*OWN, *SHARED)}
    print(json.dumps({"around": around, "lengths": lengths, "steps": steps}))  # noqa: T201
