"""One worker's side of the channel: requests to slots, a step's work, and the report of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from hyperscale.engines.vllm.protocol import Grant, Ran
from hyperscale.engines.vllm.worker.reference_attention import Ragged
from hyperscale.engines.vllm.worker.tables import Lists

if TYPE_CHECKING:
    from hyperscale.engines.vllm.scheduler.cache_spec import RaggedSpec

L = TypeVar("L", bound=Lists)


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


@dataclass
class Place:
    """Where a running request is.

    Attributes:
        slot: Its slot.
        generation: See `Grant`.
        prompt: Tokens of its prompt.
        covered: Its tokens once the step that has begun is done.
    """

    slot: int
    generation: int
    prompt: int
    covered: int = 0


class Slots(ABC):
    """Slots of the running requests: what the workers of all devices share."""

    current: "Slots | None" = None
    """The worker of this process: attention layers have no other way to it."""

    def __init__(self, lists: Lists) -> None:
        self.lists = lists
        self._places: dict[str, Place] = {}
        self._scheduled: dict[str, tuple[int, int]] = {}

    def begin(self, grants: Sequence[Grant], gone: Sequence[str], scheduled: Mapping[str, tuple[int, int]]) -> None:
        """A step's news from the scheduler: see `Book.grants`, and request to (generation, tokens of the step)."""
        lists = self.lists
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
                place = self._places[grant.request] = Place(slot, grant.generation, demand.prompt)
            lists.grant(place.slot, grant.kept, grant.added)
        for request, (_, tokens) in scheduled.items():
            self._places[request].covered += tokens
        self._scheduled = dict(scheduled)

    @abstractmethod
    def report(self) -> dict[str, Ran] | Callable[[], dict[str, Ran]]:
        """What the step did, by request; or a function that waits for the device and then tells it."""


class Worker(Slots):
    """The CPU's: everything is at hand at once."""

    def __init__(self, ragged: Ragged) -> None:
        super().__init__(ragged.lists)
        self.ragged = ragged
        self._step: Step | None = None

    def begin(self, grants: Sequence[Grant], gone: Sequence[str], scheduled: Mapping[str, tuple[int, int]]) -> None:
        """See `Slots.begin`."""
        super().begin(grants, gone, scheduled)
        self._step = None

    def resolve(self, step: Step) -> Step:
        """Find the slots of a step's requests, once."""
        if not step.slots:
            step.slots = self.lists.slot_of_block[step.first_blocks.long()].tolist()
            step.seen = torch.zeros(step.starts[-1], dtype=torch.int64, device=step.first_blocks.device)
            self._step = step
        return step

    def report(self) -> dict[str, Ran]:
        """See `Slots.report`; the pages that the step left empty go back first."""
        lists, step, ran = self.lists, self._step, {}
        if step is None:
            return {}
        order = {slot: index for index, slot in enumerate(step.slots)}
        for request, (generation, _) in self._scheduled.items():
            place = self._places[request]
            index = order[place.slot]
            self.ragged.compact(place.slot)
            covered = step.covered[index]
            assert covered == place.covered, "tokens were scheduled that the worker has not seen"
            lives = self._lives(step, index, place)
            ran[request] = Ran(generation, covered, int(lists.bump[place.slot]), lives)
        self._step = None
        return ran

    def _lives(self, step: Step, index: int, place: Place) -> tuple[int, ...]:
        """Live entries at each of the step's positions from the prompt's last on."""
        begin, end, covered = step.starts[index], step.starts[index + 1], step.covered[index]
        slot, prompt = place.slot, place.prompt
        if covered < prompt:
            return ()
        if covered == prompt:  # what the prompt leaves to the first decode step
            return (self.lists.alive(slot, prompt),)
        if end - begin == 1:  # a decode step reads all that there is
            return (int(self.lists.lens[slot].sum()),)
        decoded = min(end - begin, covered - prompt)
        return tuple(step.seen[end - decoded : end].tolist())


def tables(vllm_config: Any, spec: "RaggedSpec", kind: type[L], blocks: int, device: torch.device | str) -> L:
    """The lists of one worker, as vLLM's configuration wants them.

    Args:
        vllm_config: vLLM's configuration.
        spec: The cache's spec.
        kind: Their class.
        blocks: Superblocks of the cache, the null block included.
        device: Where the cache is; "meta" to learn their size only.
    """
    layers = vllm_config.model_config.get_num_layers(vllm_config.parallel_config)
    scheduler = vllm_config.scheduler_config
    return kind(
        layers=layers,
        heads=spec.num_kv_heads // layers,
        page_tokens=spec.block_size,
        blocks=blocks,
        slots=max(scheduler.max_num_seqs, getattr(scheduler, "max_num_active_seqs", None) or 0),
        max_tokens=vllm_config.model_config.max_model_len,
        device=device,
    )
