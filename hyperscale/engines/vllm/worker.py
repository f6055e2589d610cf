"""One worker's side of the channel: requests to slots, a step's work, and the report of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hyperscale.engines.vllm.book import Grant
from hyperscale.engines.vllm.lists import Lists
from hyperscale.engines.vllm.ragged import Pages, Ragged
from hyperscale.engines.vllm.rules import make

if TYPE_CHECKING:
    from hyperscale.engines.vllm.spec import RaggedSpec


@dataclass
class Step:
    """The requests of a forward pass, in the order of the batch.

    Attributes:
        first_blocks: (requests,) int32, the id of each one's first superblock.
        starts: Index of each one's first token in the batch, and the number of tokens.
        covered: Tokens of each one once the pass is done.
        slots: Slots; empty until the first layer asks (`Worker.resolve`), as a step's grants arrive after vLLM has made
            this object.
        seen: (tokens,) int64, the entries that each query saw so far, over layers and heads; of chunks only.
    """

    first_blocks: Tensor
    starts: list[int]
    covered: list[int]
    slots: list[int] = field(default_factory=list)
    seen: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))


@dataclass(frozen=True)
class Ran:
    """What one request did in a step.

    Attributes:
        generation: See `Grant`.
        covered: Tokens processed so far.
        pages: High-water mark of its pages.
        lives: Live entries, summed over this worker's rows, at each of the last positions before ``covered``; none of
            positions in front of the prompt's last.
    """

    generation: int
    covered: int
    pages: int
    lives: tuple[int, ...]


@dataclass(frozen=True)
class _Place:
    slot: int
    generation: int


class Worker:
    """Slots of the running requests, and the cache they are in."""

    current: "Worker | None" = None
    """The worker of this process: attention layers have no other way to it."""

    def __init__(self, ragged: Ragged) -> None:
        self.ragged = ragged
        self._places: dict[str, _Place] = {}
        self._scheduled: dict[str, tuple[int, int]] = {}
        self._step: Step | None = None

    @classmethod
    def of(cls, vllm_config: Any, spec: "RaggedSpec", cache: Tensor) -> "Worker":
        """Set up a worker around the cache tensor that vLLM has allocated, and make it the process's.

        Args:
            vllm_config: vLLM's configuration.
            spec: The cache's spec.
            cache: (blocks, lists, N, 2 * head_dim).
        """
        from vllm.distributed import get_tensor_model_parallel_rank

        blocks, size, page_tokens, _ = cache.shape
        layers = vllm_config.model_config.get_num_layers(vllm_config.parallel_config)
        heads = size // layers
        scheduler = vllm_config.scheduler_config
        lists = Lists(
            layers=layers,
            heads=heads,
            page_tokens=page_tokens,
            blocks=blocks,
            slots=max(scheduler.max_num_seqs, getattr(scheduler, "max_num_active_seqs", None) or 0),
            max_tokens=vllm_config.model_config.max_model_len,
            device=cache.device,
        )
        rule = make(lists, spec.options, get_tensor_model_parallel_rank() * heads, spec.rows // layers)
        cls.current = cls(Ragged(lists, rule, _pages(cache)))
        return cls.current

    def begin(self, grants: Sequence[Grant], gone: Sequence[str], scheduled: Mapping[str, tuple[int, int]]) -> None:
        """A step's news from the scheduler: see `Book.grants`, and request to (generation, tokens of the step)."""
        lists = self.ragged.lists
        for request in gone:
            if place := self._places.pop(request, None):
                lists.close(place.slot)
        for grant in grants:
            place = self._places.get(grant.request)
            if place is None or place.generation != grant.generation:
                if place is not None:
                    lists.close(place.slot)
                demand = grant.demand
                slot = lists.open(grant.added[0], (demand.prompt, demand.new_tokens, demand.key))
                place = self._places[grant.request] = _Place(slot, grant.generation)
            lists.grant(place.slot, grant.kept, grant.added)
        self._scheduled, self._step = dict(scheduled), None

    def resolve(self, step: Step) -> Step:
        """Find the slots of a step's requests, once."""
        if not step.slots:
            step.slots = self.ragged.lists.slot_of_block[step.first_blocks.long()].tolist()
            step.seen = torch.zeros(step.starts[-1], dtype=torch.int64, device=step.first_blocks.device)
            self._step = step
        return step

    def report(self) -> dict[str, Ran]:
        """What the step did, by request; the pages that it left empty go back first."""
        lists, step, ran = self.ragged.lists, self._step, {}
        if step is None:
            return {}
        order = {slot: index for index, slot in enumerate(step.slots)}
        for request, (generation, _) in self._scheduled.items():
            place = self._places[request]
            index = order[place.slot]
            self.ragged.compact(place.slot)
            covered = step.covered[index]
            lives = self._lives(step, index, place.slot)
            ran[request] = Ran(generation, covered, int(lists.bump[place.slot]), lives)
        self._step = None
        return ran

    def _lives(self, step: Step, index: int, slot: int) -> tuple[int, ...]:
        """Live entries at each of the step's positions from the prompt's last on."""
        begin, end, covered = step.starts[index], step.starts[index + 1], step.covered[index]
        prompt = int(self.ragged.lists.facts[slot, 0])
        if covered < prompt:
            return ()
        if covered == prompt:  # what the prompt leaves to the first decode step
            return (self.ragged.lists.alive(slot, prompt),)
        if end - begin == 1:  # a decode step reads all that there is
            return (int(self.ragged.lists.lens[slot].sum()),)
        decoded = min(end - begin, covered - prompt)
        return tuple(step.seen[end - decoded : end].tolist())


def _pages(cache: Tensor) -> Pages:
    if cache.device.type == "cpu":
        from hyperscale.engines.vllm.backend_cpu import CpuPages

        return CpuPages(cache)
    raise NotImplementedError("the CUDA backend brings its own pages")
