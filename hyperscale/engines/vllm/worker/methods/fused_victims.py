"""Decode steps of methods that choose the entry to evict by the attention of the step before: tova and h2o."""

import torch
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import Victims
from hyperscale.engines.vllm.kernels.decode_attention import decode_attention
from hyperscale.engines.vllm.kernels.victim_choice import VictimStep, VictimTables, choose_victims
from hyperscale.engines.vllm.protocol import NEVER
from hyperscale.engines.vllm.worker.methods.fused import DecodeLayer, FusedDecode, update
from hyperscale.engines.vllm.worker.methods.hosted import WorkerHosted
from hyperscale.methods.core.victim import VictimState


class FusedVictims(FusedDecode):
    """See `FusedDecode`: what leaves is found by `choose_victims`, from the scores of the attention itself."""

    _step: VictimStep

    def __init__(self, method: WorkerHosted) -> None:
        super().__init__(method.tables)
        self.method = method

    @staticmethod
    def serves(method: WorkerHosted) -> bool:
        """Whether a method's state is of this kind."""
        return isinstance(method.state, VictimState)

    @property
    def _state(self) -> VictimState:
        state = self.method.state
        assert isinstance(state, VictimState)
        return state

    def begin(self, slots: Tensor, positions: Tensor) -> None:
        """See `FusedDecode.begin`."""
        state = self._state
        bounds = state.bounds_at(state.tensors[0][:, slots], positions)
        in_prompt = self.in_prompt(slots, positions)
        limits = torch.where(in_prompt, NEVER, bounds.limit)
        self._step = VictimStep(limits, bounds.first.contiguous(), bounds.oldest_safe, in_prompt.to(torch.int64))

    def store(self, layer: DecodeLayer) -> None:
        """See `FusedDecode.store`."""
        update(self.tables, layer, victims=Victims(self._state.victim, self._step.limits))

    def attend(self, layer: DecodeLayer) -> bool:
        """See `FusedDecode.attend`."""
        state, shape = self._state, layer.queries.shape[:3]
        options = {"dtype": torch.float32, "device": layer.queries.device}
        scores = torch.empty(*shape, layer.width, **options)  # type: ignore[call-overload]
        log_sums = torch.empty(shape, **options)  # type: ignore[call-overload]
        arguments = (layer.queries, layer.cache, layer.lens, layer.pages, layer.out, layer.scale, layer.width)
        decode_attention(*arguments, scores=scores, log_sums=log_sums)
        score = state.entry_score if state.scored else None
        kept = VictimTables(state.victim, state.position, score, self.method.last_queries)
        attention = (layer.queries, scores, log_sums)
        choose_victims(self.tables, layer.layer, layer.requests, self._step, kept, *attention, state.shared)
        return True
