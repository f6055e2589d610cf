"""A student and the teacher it starts as: what a batch says of the two, and what the student's evictions save.

How far the student is from its teacher is the divergence of their logits; arXiv 2506.05345, section 3, has the loss.
`hyperscale.retrofit.trainer` has the steps that minimise it.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from hyperscale.retrofit.attention.masks import PackingMasks
from hyperscale.retrofit.attention.packed_attention import (
    checkpoint_layers,
    choose_fused,
    compile_layers,
    use_packed_attention,
)
from hyperscale.retrofit.gates.gated_model import GatedModel
from hyperscale.retrofit.losses import (
    compile_divergence,
    compression_loss,
    distillation_loss,
    distillation_loss_in_parts,
    ledger_costs,
)
from hyperscale.retrofit.low_rank.updates import LowRankUpdates
from hyperscale.retrofit.packing import CountedPlaces, TrainingBatch
from hyperscale.retrofit.parallel.ranks import Ranks
from hyperscale.retrofit.parallel.sharding import local_part, shard_model
from hyperscale.retrofit.settings import Recipe

#: Least batches of a training whose gates and loss are compiled: it takes some seconds.
COMPILED_BATCHES = 100


class Distillation:
    """A student with gates, and its teacher.

    Args:
        teacher: The original model, a transformers causal LM; it is frozen, not changed. Where its own weights do not
            train, gates (and low-rank updates) are attached to it, and it teaches with them off.
        recipe: Settings.
        dtype: Of the weights that train and of their gradients, the teacher's by default.
        frugal: Keep a layer's input instead of its activations, and compute the loss in parts. Slower, the same result.
        recompute: False keeps the activations all the same, if ``frugal``.
        ranks: The processes that share the models.
        device: Where they run.
        fill: Gives each model its values, on each process of several its part, if the teacher has no storage yet.

    Attributes:
        teacher: The teacher; the student itself where they share their weights.
        gated: The student.
        updates: Its low-rank updates; None if it has none.
        is_shared: Whether one model is both.
        compiled: Whether gates and loss are compiled.
        fused: Whether attention is by the project's own kernels.
    """

    def __init__(
        self,
        teacher: Any,
        recipe: Recipe,
        *,
        dtype: torch.dtype | None,
        frugal: bool,
        recompute: bool,
        ranks: Ranks,
        device: torch.device,
        fill: Callable[[Any], None] | None,
    ) -> None:
        self.recipe, self.frugal, self.device = recipe, frugal, device
        # Gates and low-rank updates leave the teacher's weights as they are: one model is both.
        self.is_shared = recipe.is_frozen
        student = teacher.train() if self.is_shared else copy.deepcopy(teacher).train()
        self.teacher = teacher if self.is_shared else teacher.eval()
        teacher.requires_grad_(False)
        if dtype is not None and not self.is_shared:
            _cast(student.parameters(), dtype)
        self.gated = GatedModel(student, recipe.gates())
        self.updates = LowRankUpdates(student, recipe.lora_rank, recipe.lora_alpha) if recipe.update_rank else None
        if self.is_shared:
            trained = self.gated.gate_parameters() + (self.updates.parameters() if self.updates else [])
            if dtype is not None:
                _cast(trained, dtype)
            student.requires_grad_(False)
            for parameter in trained:
                parameter.requires_grad_(True)
        else:
            student.requires_grad_(True)
        for model in {id(model): model for model in (self.teacher, student)}.values():
            use_packed_attention(model)
            if device.type == "cuda":
                compile_layers(model)
        if frugal and recompute:
            checkpoint_layers(student)
        self.fused = choose_fused(student, device)
        # What runs a function of each model: with several processes its weights are gathered meanwhile.
        self._run_teacher: Callable[[Callable[[], Any]], Any] = _call
        self._run_student: Callable[[Callable[[], Any]], Any] = _call
        self._is_alone = ranks.count == 1
        if not self._is_alone:
            self._run_student = shard_model(student, ranks, device, fill)
            self._run_teacher = self._run_student if self.is_shared else shard_model(self.teacher, ranks, device, fill)
        # Kernels of gates and loss are small, and a small model's step waits for their launches.
        self.compiled = (
            device.type == "cuda" and self._is_alone and recipe.total_steps * recipe.accumulate >= COMPILED_BATCHES
        )
        if self.compiled and self.gated.separate:
            self.gated.compile_decisions()

    def seed_noise(self, batch: int) -> None:
        """Make the noise of the gates that of a batch by its number, whichever process sees it."""
        torch.manual_seed((self.recipe.seed * 1_000_003 + batch) % 2**63)

    def target(self, cr: float) -> float:
        """Share to be saved at a compression ratio."""
        return max(0.0, 1.0 - 1.0 / (self.recipe.reach * cr))

    def losses(self, batch: TrainingBatch, cr: float) -> tuple[Tensor, Tensor, Tensor]:
        """Losses of a batch on the way to a compression ratio.

        Args:
            batch: Rows of packed documents.
            cr: The ratio that this step aims at.

        Returns:
            What is minimised, the divergence in it, and the share saved, (groups, axes).
        """
        counted, batch = self.bring(batch)
        return self.losses_of(batch, counted, self.target(cr))

    def losses_of(
        self, batch: TrainingBatch, counted: CountedPlaces | None, target: float | Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`losses` of a batch that is on the device; nothing waits for it.

        Args:
            batch: The batch.
            counted: Its places that count, there too; None if the loss is not computed in parts.
            target: Share to be saved, a scalar.
        """
        r = self.recipe
        kl, alphas = self._compare(batch, counted, r.symmetric)
        group = batch.kind if r.groups > 1 else torch.where(batch.kind >= 0, 0, -1)
        # Frozen gates keep their ratio in the hard phase. Neurons that train with the weights have to be held to it.
        held = self.gated.mode == "hard" and not self.gated.separate
        missing, share = compression_loss(alphas, target, group, r.groups, *self._costs(batch), held=held)
        return kl + missing if held or self.gated.mode == "noisy" else kl, kl, share

    def divergence(self, batch: TrainingBatch, symmetric: bool = False) -> tuple[Tensor, list[Tensor]]:
        """Divergence of the student from the teacher on one batch, and the student's evictions.

        Args:
            batch: Rows of packed documents.
            symmetric: Add KL(teacher || student) to KL(student || teacher).

        Returns:
            A scalar, in nats per token that counts, and one (batch, sequence, kv_heads) alpha a layer.
        """
        counted, batch = self.bring(batch)
        return self._compare(batch, counted, symmetric)

    def saved_share(self, batch: TrainingBatch, alphas: list[Tensor]) -> Tensor:
        """What a batch's evictions save, of all kinds of data together.

        Args:
            batch: The batch.
            alphas: Its evictions, one (batch, sequence, kv_heads) tensor a layer.

        Returns:
            (axes,) share of entries; by the ledger, of reads and of entries held.
        """
        batch = batch.to(self.device)
        group = torch.where(batch.kind >= 0, 0, -1)
        return compression_loss(alphas, 0.0, group, 1, *self._costs(batch))[1][0]

    def bring(
        self, batch: TrainingBatch, counted: CountedPlaces | None = None
    ) -> tuple[CountedPlaces | None, TrainingBatch]:
        """The places that count, if the loss is computed in parts, and the batch, both on the device.

        Args:
            batch: The batch, on the host.
            counted: Its places, there too, if they have been looked for.
        """
        if counted is None and self.frugal:
            counted = batch.counted()  # before the copy: on the device it would be waited for
        return None if counted is None else counted.to(self.device), batch.to(self.device)

    def _costs(self, batch: TrainingBatch) -> tuple[Tensor, ...]:
        """Costs and savings of the entries of a batch on the device, for `compression_loss`.

        By default each token costs and saves 1, the paper's loss; by the ledger, what runs are measured in.
        """
        r = self.recipe
        return ledger_costs(batch.document, batch.weight, r.delay) if r.ledger else ()

    def _compare(
        self, batch: TrainingBatch, counted: CountedPlaces | None, symmetric: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """`divergence`, of a batch that is on the device."""
        inputs = {
            "input_ids": batch.ids,
            "position_ids": batch.position,
            "masks": PackingMasks.build(batch.document, self.recipe.delay, fused=self.fused),
        }

        def teach() -> Tensor:
            """The teacher's last hidden states, or its logits."""
            with self.as_teacher():
                if self.frugal:
                    return cast("Tensor", self.teacher.model(**inputs, use_cache=False).last_hidden_state)
                return cast("Tensor", self.teacher(**inputs, use_cache=False).logits)

        def compare(taught: Tensor) -> tuple[Tensor, list[Tensor]]:
            if self.frugal:
                hidden = self.gated.hidden(**inputs)
                heads = self.gated.model.lm_head, self.teacher.lm_head
                kl = distillation_loss_in_parts(
                    hidden, taught, *heads, batch.weight, symmetric, counted=counted, compiled=self.compiled
                )
            else:
                divergence = compile_divergence() if self.compiled else distillation_loss
                kl = divergence(self.gated.forward(**inputs), taught, batch.weight, symmetric)
            return kl, self.gated.alphas

        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            found: tuple[Tensor, list[Tensor]]
            if self.is_shared:
                found = self._run_student(lambda: compare(teach()))
            else:
                taught = self._run_teacher(teach)
                found = self._run_student(lambda: compare(taught))
        return found

    @contextmanager
    def as_teacher(self) -> Iterator[None]:
        """Without gradients, and with gates and updates off if the teacher's weights are the student's."""
        mode = self.gated.mode
        if self.is_shared:
            self.gated.mode = "off"
        if self.updates:
            self.updates.switch(on=False)
        try:
            with torch.no_grad():
                yield
        finally:
            self.gated.mode = mode
            if self.updates:
                self.updates.switch(on=True)

    def trained_state(self) -> dict[str, Tensor]:
        """The student's state; of one that shares its weights with the teacher, what trains alone."""
        state: dict[str, Tensor] = self.gated.model.state_dict()
        if not self.is_shared:
            return state
        trained = {name for name, parameter in self.gated.model.named_parameters() if parameter.requires_grad}
        return {name: value for name, value in state.items() if name in trained}

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Put values of `trained_state` back, on each process of several its part."""
        if self._is_alone:
            self.gated.model.load_state_dict(state, strict=not self.is_shared)
            return
        own = self.trained_state()
        with torch.no_grad():
            for name, value in state.items():
                local_part(own[name]).copy_(value)


def _cast(parameters: Iterable[Any], dtype: torch.dtype) -> None:
    # Parameters alone: the rotary frequencies are buffers, and rounding them would move every position.
    for parameter in parameters:
        parameter.data = parameter.data.to(dtype)


def _call(function: Callable[[], Any]) -> Any:
    return function()
