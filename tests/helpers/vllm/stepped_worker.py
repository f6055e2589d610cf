"""A worker of the CUDA backend without a model or an engine, driven step by step as vLLM's runner does."""

import torch
from interpreted import DEVICE

from hyperscale.engines.vllm.kernels.arguments import PagedCache
from hyperscale.engines.vllm.protocol import RequestParams, SuperblockUpdate
from hyperscale.engines.vllm.worker.cache_worker import CacheWorker
from hyperscale.engines.vllm.worker.cuda import CudaCacheWorker
from hyperscale.engines.vllm.worker.methods.registry import create
from hyperscale.engines.vllm.worker.staged_tables import StagedTables

LAYERS, HEADS, GROUP, DIM, PAGE = 2, 2, 2, 32, 32
PROMPTS = {"a": 5, "b": 40, "c": 9}


class SteppedWorker:
    """One worker, and what vLLM's runner does for it with a step; tokens of a request are always the same."""

    def __init__(self, options, *, fa3=False):
        from hyperscale.engines.vllm.backends.cuda import CudaRaggedBuilder, CudaRaggedImpl

        shape = {"layers": LAYERS, "heads": HEADS, "page_tokens": PAGE, "blocks": 30, "slots": 4, "max_tokens": 128}
        tables = StagedTables(**shape, device=DEVICE)
        self.cache = torch.zeros(30, LAYERS * HEADS, PAGE, 2 * DIM, device=DEVICE)
        self.worker = CudaCacheWorker(tables, create(tables, options, 0, HEADS), PagedCache.of(self.cache), fa3)
        self.gated = options.method == "dms"
        self.builder = CudaRaggedBuilder(None, [], None, DEVICE)
        self.impl = CudaRaggedImpl(HEADS * GROUP, DIM, 0.2, HEADS)
        self.done, self.first = dict.fromkeys(PROMPTS, 0), {}
        self.generations = {}
        self.preempted = {}  # requests that start anew with the next step, with their generations

    def metadata(self, names, sizes, padding):
        from vllm.v1.attention.backend import CommonAttentionMetadata

        starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        starts += starts[-1:] * padding
        table = torch.zeros(len(names) + padding, 4, dtype=torch.int32)
        table[: len(names), 0] = torch.tensor([self.first[name] for name in names])
        lens = [self.done[name] + n for name, n in zip(names, sizes, strict=True)] + [0] * padding
        host = torch.tensor(starts, dtype=torch.int32)
        return CommonAttentionMetadata(
            query_start_loc=host.to(DEVICE),
            query_start_loc_cpu=host,
            seq_lens=torch.tensor(lens, dtype=torch.int32, device=DEVICE),
            num_reqs=len(lens),
            num_actual_tokens=starts[-1],
            max_query_len=max(sizes),
            max_seq_len=max(lens),
            block_table_tensor=table.to(DEVICE),
            slot_mapping=torch.zeros(0, device=DEVICE),
        )

    def forward(self, names, sizes, padding=0):
        """Outputs by request, (layers, tokens, query heads, head_dim)."""
        step = self.builder.build(0, self.metadata(names, sizes, padding))
        spans = [(self.done[name], self.done[name] + n) for name, n in zip(names, sizes, strict=True)]
        out = torch.zeros(LAYERS, sum(sizes) + padding, HEADS * GROUP, DIM, device=DEVICE)
        yield step
        CacheWorker.current = self.worker
        for layer in range(LAYERS):
            parts = [tokens(name, layer) for name in names]
            rows = [
                torch.cat([each[kind][a:b] for each, (a, b) in zip(parts, spans, strict=True)]) for kind in range(4)
            ]
            rows = [torch.cat([x, x.new_full((padding, *x.shape[1:]), float("nan"))]).to(DEVICE) for x in rows]
            logits = rows[3] if self.gated else None
            self.impl.attend(step, layer, *rows[:3], logits, out[layer])
        yield dict(zip(names, out[:, : sum(sizes)].cpu().split(sizes, 1), strict=True))

    def step(self, names, sizes, padding=0, replayed=False):
        """Outputs and report of a step; as in vLLM the step is described before the worker hears of it.

        A step that is the replay of a graph runs the kernels and none of the Python.
        """
        updates = []
        for name in names:
            if name not in self.first or name in self.preempted:
                self.first[name] = 1 + 9 * list(PROMPTS).index(name)
                params = RequestParams(PROMPTS[name], 50, 1)
                blocks = tuple(range(self.first[name], self.first[name] + 9))
                self.generations[name] = self.preempted.get(name, 1)
                updates.append(SuperblockUpdate(name, self.generations[name], 0, blocks, params))
        passing = self.forward(names, sizes, padding)
        next(passing).capturing = replayed
        scheduled = {name: (self.generations[name], n) for name, n in zip(names, sizes, strict=True)}
        self.worker.begin_step(updates, list(self.preempted), scheduled)
        self.preempted = {}
        out = next(passing)
        if replayed:
            self.worker._step = None
        for name, n in zip(names, sizes, strict=True):
            self.done[name] += n
        report = self.worker.report_step()
        return out, report() if callable(report) else report


def tokens(name, layer):
    """Queries, keys, values and DMS's logits of all tokens of a request in a layer."""
    draw = torch.Generator().manual_seed(100 * ord(name) + layer)
    shapes = ((HEADS * GROUP, DIM), (HEADS, DIM), (HEADS, DIM), (HEADS,))
    return [torch.randn(100, *shape, generator=draw) for shape in shapes]
