"""The GPU worker's side of the channel: nothing of a step waits for the device, and its report is one copy.

Which requests run, how many tokens of each, and what their prompts are, the host knows; where their lists are and how
long, only the device does. The kernels look it up by the requests' first superblocks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import Chunks, Decodes, Pool
from hyperscale.engines.vllm.protocol import Grant, Ran
from hyperscale.engines.vllm.worker.rule import Rule
from hyperscale.engines.vllm.worker.rules import Recent
from hyperscale.engines.vllm.worker.slots import Place, Slots
from hyperscale.engines.vllm.worker.staged_tables import StagedLists, upload


@dataclass
class CudaStep:
    """The requests of a forward pass: first those that decode, then the chunks.

    Attributes:
        first_blocks: (requests,) int32, any stride.
        offsets: (requests + 1,) int32, where each one's tokens begin.
        covered: (requests,) int32, tokens of each one once the pass is done.
        starts: The same as ``offsets``, on the host.
        decodes: How many of the requests, all in front, have one token.
        longest: At least the entries of the longest list.
        capturing: Whether the pass is recorded as a CUDA graph.
        rows: Of the decode steps; like what follows it is known once the first layer has asked (`CudaWorker.resolve`),
            as the step's grants arrive after vLLM has made this object.
        chunks: Of the chunks.
        born: (requests that decode,) int32, expiries of the new entries; None unless the rule knows them now.
        born_in: (tokens,) int32, likewise of all tokens.
        slots: (requests,) int64.
        since: (chunks,) int32, the first position whose reads are wanted; None if no chunk has one.
        seen: (tokens,) int64, entries that each query saw so far, over layers and heads, where they are wanted.
    """

    first_blocks: Tensor
    offsets: Tensor
    covered: Tensor
    starts: list[int]
    decodes: int
    longest: int
    capturing: bool = False
    rows: Decodes | None = None
    chunks: Chunks | None = None
    born: Tensor | None = None
    born_in: Tensor | None = None
    slots: Tensor | None = None
    since: Tensor | None = None
    seen: Tensor | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the batch, padding not counted."""
        return self.starts[-1]


@dataclass(frozen=True)
class _Told:
    """One request of a report."""

    request: str
    generation: int
    covered: int
    tokens: int
    prompt: int
    slot: int


class CudaWorker(Slots):
    """Slots and lists on a GPU.

    Attributes:
        pool: The cache.
        rule: The rule.
        fa3: Whether FlashAttention 3 attends for decode steps.
    """

    lists: StagedLists

    def __init__(self, lists: StagedLists, rule: Rule, pool: Pool, fa3: bool) -> None:
        super().__init__(lists)
        self.pool, self.rule, self.fa3 = pool, rule, fa3
        self._step: CudaStep | None = None
        self._running = False

    def begin(self, grants: Sequence[Grant], gone: Sequence[str], scheduled: Mapping[str, tuple[int, int]]) -> None:
        """See `Slots.begin`."""
        super().begin(grants, gone, scheduled)
        self.lists.flush()
        self._step, self._running = None, True

    def resolve(self, step: CudaStep) -> CudaStep:
        """Work out, once for all layers and on the device, what the kernels are told of a step's requests."""
        if step.rows is not None:
            return step
        n = step.decodes
        blocks = step.first_blocks.clone()  # contiguous and aligned: kernels are compiled for either
        if not (self._running or step.capturing):  # vLLM warms up, and may name superblocks of running requests
            blocks.zero_()
        step.rows = Decodes(blocks[:n], step.covered[:n] - 1)
        if n < len(blocks):
            offsets = step.offsets[n:].clone()
            longest = max(b - a for a, b in zip(step.starts[n:], step.starts[n + 1 :], strict=False))
            step.chunks = Chunks(blocks[n:].clone(), offsets, step.covered[n:] - offsets.diff(), longest)
        step.slots = self.lists.slot_of_block[blocks.long()].long()
        if isinstance(self.rule, Recent):
            step.born = self.rule.expiries(step.slots[:n], step.rows.positions.long())
            if step.chunks is not None:
                step.born_in = self._born_in(self.rule, step, step.slots)
        if step.chunks is not None and self._reads_of_chunks(n):
            step.since = self.lists.facts[step.slots[n:], 0].to(torch.int32)
            step.seen = torch.zeros(step.tokens, dtype=torch.int64, device=blocks.device)
        self._step = step
        return step

    def _born_in(self, rule: Recent, step: CudaStep, slots: Tensor) -> Tensor:
        sizes = step.offsets.diff()
        row = torch.arange(len(sizes), device=slots.device).repeat_interleave(sizes, output_size=step.tokens)
        ahead = (step.covered - step.offsets[1:])[row]
        return rule.expiries(slots[row], (torch.arange(step.tokens, device=slots.device) + ahead).long())

    def _reads_of_chunks(self, decodes: int) -> bool:
        """Whether a chunk has decode steps in it, as after a preemption."""
        sizes = {request: tokens for request, (_, tokens) in self._scheduled.items()}
        deep = any(self._places[r].covered > self._places[r].prompt for r, tokens in sizes.items() if tokens > 1)
        return deep or sum(tokens == 1 for tokens in sizes.values()) > decodes

    def report(self) -> dict[str, Ran] | Callable[[], dict[str, Ran]]:
        """See `Slots.report`: the numbers are on their way to the host when this returns."""
        step, scheduled = self._step, self._scheduled
        self._step, self._scheduled, self._running = None, {}, False
        if not scheduled:
            return {}
        told = [_told(request, *asked, self._places[request]) for request, asked in scheduled.items()]
        lists, device = self.lists, self.lists.expiry.device
        slots = upload([each.slot for each in told], device)
        parts = [lists.bump[slots], lists.supplied[slots], lists.lens[slots].flatten(1).sum(1)]
        # A prompt that ended with a single token was handled as a decode step: some of what that saw is gone for the
        # first generated token, whose reads and peak count.
        ends = [each for each in told if each.covered == each.prompt and each.tokens == 1]
        parts += [lists.count_alive(each.slot, each.prompt, each.covered)[None] for each in ends]
        if step is not None and step.seen is not None and step.slots is not None:
            parts += [step.slots, step.seen]
        numbers = torch.cat([part.to(torch.int64) for part in parts])
        sizes = [len(part) for part in parts]
        if device.type != "cuda":
            return _told_by(told, ends, step, numbers, sizes, lists.size)
        copied, done = numbers.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()

        def wait() -> dict[str, Ran]:
            done.synchronize()
            return _told_by(told, ends, step, copied, sizes, lists.size)

        return wait


def _told(request: str, generation: int, tokens: int, place: Place) -> _Told:
    return _Told(request, generation, place.covered, tokens, place.prompt, place.slot)


def _told_by(
    told: list[_Told], ends: list[_Told], step: CudaStep | None, numbers: Tensor, sizes: list[int], size: int
) -> dict[str, Ran]:
    """A report from the numbers that `CudaWorker.report` has asked the device for."""
    bump, supplied, live, *rest = (part.tolist() for part in torch.split(numbers, sizes))
    counted = step is not None and step.seen is not None
    alive = {each.request: count for each, (count,) in zip(ends, rest, strict=False)}
    slots, seen = rest[len(ends) :] if counted else ([], [])
    order = {slot: index for index, slot in enumerate(slots)}
    ran = {}
    for index, each in enumerate(told):
        assert bump[index] <= supplied[index] * size, "page over-commit"
        lives: tuple[int, ...] = ()
        if each.covered == each.prompt:  # what the prompt leaves to the first decode step
            lives = (alive.get(each.request, live[index]),)
        elif each.covered > each.prompt:
            if counted and step is not None and order[each.slot] >= step.decodes:
                end = step.starts[order[each.slot] + 1]
                lives = tuple(seen[end - min(each.tokens, each.covered - each.prompt) : end])
            else:  # a decode step reads all that there is
                lives = (live[index],)
        ran[each.request] = Ran(each.generation, each.covered, bump[index], lives)
    return ran
