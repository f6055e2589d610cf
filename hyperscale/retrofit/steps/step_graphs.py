"""Records what the losses of a batch and their gradients launch as a CUDA graph, and replays it for later batches.

A step of a small model is thousands of short kernels, and the host takes longer to launch them than the GPU to run
them: 34 ms for 9 with the built-in model, 207 for 162 with SmolLM2-135M (one H200). What a graph launches lies where it
lay when it was recorded, so batches are copied to one place, and gradients are added up in one.

Recorded and replayed steps draw the same noise as launched ones: the generator is seeded before each batch either way.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from hyperscale.errors import RetrofitError
from hyperscale.retrofit.distillation import Distillation
from hyperscale.retrofit.losses import LOSS_TOKENS
from hyperscale.retrofit.memory_estimate import LARGEST_RECORDED
from hyperscale.retrofit.packing import CountedPlaces, TrainingBatch

#: The loss is computed in parts of `LOSS_TOKENS`; a graph is recorded for a multiple of so many of them.
PARTS = 4
#: Batches that are launched before one is recorded: what is compiled, and tuned when it first runs, is by then.
WARM_UP = 3


@dataclass(frozen=True)
class BatchLosses:
    """What a batch gives, on the device.

    Attributes:
        loss: What is minimised.
        divergence: The divergence in it.
        share: (groups, axes), the share saved.
    """

    loss: Tensor
    divergence: Tensor
    share: Tensor


def can_record(distillation: Distillation) -> bool:
    """Whether steps are worth recording, and can be: those of a small model, compiled, on one GPU."""
    weights = sum(weight.numel() for weight in distillation.gated.model.parameters())
    return distillation.compiled and distillation.fused and weights <= LARGEST_RECORDED


class StepGraphs:
    """The graphs of a training on one GPU, one for each mode of the gates and each number of counted tokens.

    The first batches of each are launched, which compiles what is compiled; then one is recorded.

    Args:
        distillation: Student and teacher.
        scale: Factor on the loss whose gradients are added up.
    """

    def __init__(self, distillation: Distillation, scale: float) -> None:
        self._distillation, self._scale = distillation, scale
        self._parameters = [weight for weight in distillation.gated.model.parameters() if weight.requires_grad]
        self._gradients = [torch.zeros_like(weight) for weight in self._parameters]
        self._graphs: dict[tuple[Any, ...], _Graph] = {}
        self._launched: Counter[tuple[Any, ...]] = Counter()
        self._addresses: tuple[int, ...] = ()

    def add_gradients(self, batch: TrainingBatch, cr: float) -> BatchLosses:
        """Add the gradients of a batch's loss to those of the weights.

        Args:
            batch: Rows of packed documents, on the host.
            cr: The ratio that the step aims at.

        Returns:
            The losses, until the next call.

        Raises:
            RetrofitError: The batch cannot be recorded; the GPU is not to be relied on in this process afterwards.
        """
        self._attach_gradients()
        self._forget_moved()
        counted = pad_places(batch.counted()) if self._distillation.frugal else None
        key = (self._distillation.gated.mode, *batch.ids.shape, counted and len(counted.places))
        target = self._distillation.target(cr)
        if self._launched[key] < WARM_UP:
            self._launched[key] += 1
            return self._launch(batch, counted, target)
        if key not in self._graphs:
            try:
                self._graphs[key] = _Graph(self._run, batch, counted, self._distillation.device, self._pool())
            except RuntimeError as error:
                raise RetrofitError(
                    "a step of the training could not be recorded as a CUDA graph: pass --no-cuda-graphs, with which "
                    f"the same command goes on from the last state. CUDA says: {error}"
                ) from error
            self._forget_activations()
        return self._graphs[key].replay(batch, counted, target)

    def clear_gradients(self) -> None:
        """Set all gradients to zero, where they are."""
        torch._foreach_zero_(self._gradients)

    def _run(self, batch: TrainingBatch, counted: CountedPlaces | None, target: Tensor) -> BatchLosses:
        """Losses and gradients, from numbers on the device."""
        found = self._distillation.losses_of(batch, counted, target)
        (found[0] * self._scale).backward()  # type: ignore[no-untyped-call]
        return BatchLosses(*(value.detach() for value in found))

    def _launch(self, batch: TrainingBatch, counted: CountedPlaces | None, target: float) -> BatchLosses:
        counted, batch = self._distillation.bring(batch, counted)
        found = self._run(batch, counted, torch.full((), target, device=self._distillation.device))
        self._forget_activations()
        return found

    def _attach_gradients(self) -> None:
        """Let the weights' gradients be those that graphs add to, whatever has become of them since."""
        for weight, gradient in zip(self._parameters, self._gradients, strict=True):
            if weight.grad is not gradient:
                if weight.grad is None:
                    gradient.zero_()
                else:
                    gradient.copy_(weight.grad)
                weight.grad = gradient

    def _forget_moved(self) -> None:
        """Forget all graphs once a weight lies elsewhere, as after it was written in another type."""
        d = self._distillation
        models: Iterable[Any] = (d.gated.model,) if d.is_shared else (d.gated.model, d.teacher)
        addresses = tuple(weight.data_ptr() for model in models for weight in model.parameters())
        if addresses != self._addresses:
            self._graphs.clear()
            self._launched.clear()
            self._addresses = addresses

    def _forget_activations(self) -> None:
        """Drop what the last pass left in the model: it would hold the pass's memory, and its way back."""
        self._distillation.gated.alphas = []
        for layer in self._distillation.gated.model.model.layers:
            layer.self_attn.key_bias = layer.self_attn.alpha = None

    def _pool(self) -> Any:
        """The memory that all graphs share: they run one after another."""
        return next((graph.graph.pool() for graph in self._graphs.values()), None)


class _Graph:
    """One graph, with the places that it reads.

    Args:
        run: What is recorded.
        batch: A batch of the sizes that it is recorded for.
        counted: Its places that count; None if the loss is not computed in parts.
        device: The GPU.
        pool: Memory of other graphs, to be shared; None if there are none.
    """

    def __init__(
        self,
        run: Callable[[TrainingBatch, CountedPlaces | None, Tensor], BatchLosses],
        batch: TrainingBatch,
        counted: CountedPlaces | None,
        device: torch.device,
        pool: Any,
    ) -> None:
        self._batch = batch.to(device)
        self._counted = counted.to(device) if counted is not None else None
        self._target = torch.zeros((), device=device)
        torch.cuda.synchronize(device)  # the copies read memory of the host that recording must not free
        self.graph = torch.cuda.CUDAGraph()
        # Other threads may go on: one writes states of the training.
        with torch.cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local"):
            self._losses = run(self._batch, self._counted, self._target)

    def replay(self, batch: TrainingBatch, counted: CountedPlaces | None, target: float) -> BatchLosses:
        """Run it on another batch."""
        _fill(self._batch, batch)
        if self._counted is not None and counted is not None:
            _fill(self._counted, counted)
        self._target.fill_(target)
        self.graph.replay()
        return self._losses


def _fill(places: Any, values: Any) -> None:
    """Copy the tensors of one dataclass to those of another; the host does not wait."""
    for tensor in fields(places):
        getattr(places, tensor.name).copy_(getattr(values, tensor.name).pin_memory(), non_blocking=True)


def pad_places(counted: CountedPlaces) -> CountedPlaces:
    """As many places as fill a multiple of `PARTS` parts of the loss; those that are added weigh nothing."""
    step = PARTS * LOSS_TOKENS
    lacking = -len(counted.places) % step or (0 if len(counted.places) else step)
    pad = torch.nn.functional.pad
    return CountedPlaces(pad(counted.places, (0, lacking)), pad(counted.weights, (0, lacking)))
