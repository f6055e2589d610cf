"""Decode steps of methods that know all places of a step when it begins: random, window and streaming."""

import torch
from torch import Tensor

from hyperscale.engines.vllm.protocol import NEVER
from hyperscale.engines.vllm.worker.methods.fused import DecodeLayer, FusedDecode, update
from hyperscale.engines.vllm.worker.methods.hosted import WorkerHosted
from hyperscale.methods.core.base import DecodeStep, State


class FusedPlan(FusedDecode):
    """A method whose state knows all places of a step when it begins (`State.planned_slots`)."""

    by_slot = False

    def __init__(self, method: WorkerHosted) -> None:
        super().__init__(method.tables)
        self.method = method
        method.stored.fit()  # a graph has to find it where it was recorded

    @staticmethod
    def serves(method: WorkerHosted) -> bool:
        """Whether a method's state is of this kind."""
        return type(method.state).planned_slots is not State.planned_slots

    def begin(self, slots: Tensor, positions: Tensor) -> None:
        """See `FusedDecode.begin`."""
        lens = self.tables.lens[slots].transpose(0, 1).to(torch.int64)
        self.method.stored.load(slots)
        self.method.state.begin(DecodeStep(positions, lens))
        self.method.stored.save(slots)
        planned = self.method.state.planned_slots()
        assert planned is not None, "a state that plans its slots"
        # A place behind a list's end stands for its end.
        self._targets = torch.where(self.in_prompt(slots, positions)[:, None], NEVER, planned)

    def store(self, layer: DecodeLayer) -> None:
        """See `FusedDecode.store`."""
        update(self.tables, layer, targets=self._targets[layer.layer])
