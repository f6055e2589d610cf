"""Trains a student to decide which tokens each KV head can do without, or can merge, in about a thousand steps.

Recipe of arXiv 2506.05345, section 3: the student starts as the teacher, all weights train, the logits are distilled,
Gumbel-sigmoid gates decide, evictions take effect after a window, and a one-sided loss pulls the mean eviction up to
``1 - 1 / CR(t)`` with CR rising linearly. One departure, off by setting ``hard_steps=(0,)`` or ``finish="soft"``: a
checkpoint is finished by a phase with the hard gates of inference (see `hyperscale.retrofit.gate_check` for why). DMC
(arXiv 2403.09636) is trained in the same way; its neurons, which train with the weights, are held to the ratio there.

The phases, in steps::

    fade (borrowed neurons only) → noisy: CR rises …………… target 1 ……………………… target 2 ………
                                                            └→ hard → checkpoint    └→ hard → checkpoint
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from hyperscale.errors import RetrofitError
from hyperscale.methods.core.dmc_merge import MergeConfig
from hyperscale.methods.core.dms_gate import GateConfig
from hyperscale.retrofit.distillation import Distillation
from hyperscale.retrofit.losses import scheduled_cr
from hyperscale.retrofit.packing import TrainingBatch
from hyperscale.retrofit.parallel.ranks import Ranks
from hyperscale.retrofit.parallel.sharding import local_part, whole_tensor
from hyperscale.retrofit.reporting.step_metrics import StepMetrics, format_line
from hyperscale.retrofit.reporting.training_clock import TrainingClock
from hyperscale.retrofit.settings import Recipe, check_shares
from hyperscale.retrofit.steps.optimizer import adamw, move_state, restore_moments, take_moments
from hyperscale.retrofit.steps.step_graphs import BatchLosses, StepGraphs, can_record

Phase = Literal["fade", "noisy", "hard"]
#: Steps between two entries of the log.
LOG_STEPS = 25
#: Seconds after which a line is reported even if no step is due to be logged.
REPORT_SECONDS = 30.0


@dataclass
class TrainedStudent:
    """A checkpoint at one compression ratio; the retrofit's student holds its weights until the next one is asked for.

    Attributes:
        cr: The ratio it was trained to.
        model: The student, gates attached.
        config: The gates' settings.
        steps: Optimiser steps it has seen, the hard phase included.
        tokens: Tokens it has seen, the hard phase included.
        log: One entry per logged step: step, mode, cr, kl (what was minimised, both directions if ``symmetric``), and
            alpha of each group (with ``ledger``, its share of reads saved).
    """

    cr: float
    model: Any
    config: GateConfig | MergeConfig
    steps: int
    tokens: int
    log: list[dict[str, Any]]


@dataclass
class Trunk:
    """Where the noisy phase stood when a hard phase branched off from it.

    Attributes:
        weights: The student's, on the CPU; empty if no ratio follows.
        optimizer: With its moments on the CPU; None if no ratio follows.
        steps: Optimiser steps.
        tokens: Tokens.
        log: The log up to there.
    """

    weights: dict[str, Tensor]
    optimizer: torch.optim.Optimizer | None
    steps: int
    tokens: int
    log: list[dict[str, Any]]


class Retrofit:
    """Trains one student against its teacher.

    A training can be left after any step and taken up again: `state_dict` holds all that its future depends on, and
    ``after_step`` is when to ask for it. On one device what follows is the same bit for bit.

    Args:
        teacher: The original model, a transformers causal LM on its device; it is frozen, not changed. Where its own
            weights do not train, gates (and low-rank updates) are attached to it, and it teaches with them off.
        recipe: Settings.
        report: Called with a line of text now and then.
        dtype: Of the weights that train and of their gradients, the teacher's by default. The moments of AdamW are
            float32 whatever it is; bfloat16 weights are rounded stochastically.
        frugal: Keep a layer's input instead of its activations, and compute the loss in parts. Slower, the same result.
        recompute: False keeps the activations all the same, if ``frugal``.
        graphs: Record steps of small models as CUDA graphs; see `hyperscale.retrofit.steps.step_graphs`.
        observe: Called with the figures of steps that are read out; by default a line of them goes to ``report``.
        after_step: Called after each step, when the state is whole.
        ranks: The processes that share the training. Each has the same teacher, on the CPU or on its device, and sees
            its part of the batches of a step; what is learned does not depend on how many there are, but for rounding.
        device: Where a process of several trains; the teacher's device if it is alone.
        fill: Gives each model its values, on each process of several its part, if the teacher has no storage yet.
    """

    def __init__(
        self,
        teacher: Any,
        recipe: Recipe,
        *,
        report: Callable[[str], None] = print,
        dtype: torch.dtype | None = None,
        frugal: bool = False,
        recompute: bool = True,
        graphs: bool = True,
        observe: Callable[[StepMetrics], None] | None = None,
        after_step: Callable[[], None] = lambda: None,
        ranks: Ranks | None = None,
        device: torch.device | None = None,
        fill: Callable[[Any], None] | None = None,
    ) -> None:
        self.recipe, self.report = recipe, report
        self.observe = observe or (lambda metrics: report(format_line(metrics)))
        self.after_step = after_step
        self.report_seconds = REPORT_SECONDS
        self.ranks = ranks or Ranks()
        check_shares(self.ranks.count, recipe)
        self.device = device or next(teacher.parameters()).device
        torch.manual_seed(recipe.seed)
        self.distillation = Distillation(
            teacher, recipe, dtype=dtype, frugal=frugal, recompute=recompute, ranks=self.ranks, device=self.device,
            fill=fill,
        )  # fmt: skip
        self.gated = self.distillation.gated
        self.steps = self.tokens = 0
        self.log: list[dict[str, Any]] = []
        # Where the training stands: the ratio it is on its way to, the phase, and that phase's steps so far.
        self.ratio, self.phase_steps = 0, 0
        self.phase: Phase = "noisy" if self.gated.separate else "fade"
        self.optimizer: torch.optim.Optimizer | None = None
        self.trunk: Trunk | None = None
        # Of the whole training, branches included.
        self.steps_done = self.batches_read = 0
        self.clock = TrainingClock()
        self._faults = torch.zeros((), device=self.device)
        self.graphs: StepGraphs | None = None
        if graphs and can_record(self.distillation):
            self.graphs = StepGraphs(self.distillation, 1 / recipe.accumulate)

    @property
    def checkpoint_due(self) -> bool:
        """Whether the step just done was the last one before a checkpoint."""
        cr = self.recipe.crs[self.ratio]
        hard_steps = self.recipe.hard_steps_at(cr)
        if self.phase == "noisy" and not hard_steps:
            return self.steps == self.recipe.steps_until(cr)
        return self.phase == "hard" and self.phase_steps == hard_steps

    def run(self, batches: Iterator[TrainingBatch]) -> Iterator[TrainedStudent]:
        """Train; yield a finished checkpoint at each target ratio.

        Args:
            batches: Endless, from their beginning: those that a resumed training has seen are passed over.

        Raises:
            RetrofitError: A loss is not finite.
        """
        r = self.recipe
        for _ in range(self.batches_read):
            next(batches)
        if self.phase == "fade":
            self._fade(batches)
            self.phase, self.phase_steps, self.optimizer = "noisy", 0, None
        while self.ratio < len(r.crs):
            cr = r.crs[self.ratio]
            if self.phase == "noisy":
                self._rise(cr, batches)
                self._branch_off(last=cr == r.crs[-1])
            self._finish(cr, batches)
            self.require_finite()
            config = replace(self.gated.config, cr=cr)
            yield TrainedStudent(cr, self.gated.model, config, self.steps, self.tokens, list(self.log))
            self._return_to_trunk()

    def _fade(self, batches: Iterator[TrainingBatch]) -> None:
        """Fade borrowed neurons out: in attention, and where they are made, so that logits start at their offset."""
        self.optimizer = self.optimizer or self._optimizer(gates=False)
        self.gated.mode = "off"
        count = self.recipe.fading
        for step in range(self.phase_steps, count):
            self.steps += 1
            self.gated.visible = 1.0 - step / count
            self._step(self.optimizer, batches, 1.0, lr_factor=min(1.0, (step + 1) / self.recipe.warmup))
            # The factors (1 - 1/n_t) (1 - 1/(n_t - 1)) … multiply up to 1 - t/n_t, and to 0 at the end.
            self.gated.scale_neurons(1.0 - 1.0 / (count - step))
            self._end_step()
        self.gated.visible, self.gated.mode = 0.0, "noisy"
        self.gated.scale_neurons(0.0)

    def _rise(self, cr: float, batches: Iterator[TrainingBatch]) -> None:
        """Train weights and gates, with noise, until the schedule has reached a ratio."""
        r = self.recipe
        self.optimizer = self.optimizer or self._optimizer(gates=True)
        while self.steps < r.steps_until(cr):
            self.steps += 1
            noisy_step = self.steps - r.fading
            target = scheduled_cr(noisy_step, r.steps_per_unit, r.crs[-1])
            self._step(self.optimizer, batches, target, lr_factor=min(1.0, noisy_step / r.warmup))
            self._end_step()

    def _branch_off(self, *, last: bool) -> None:
        """Begin a hard phase, a branch: the noisy phase goes on afterwards from what it had here.

        After the last target nothing goes on, so nothing is copied.
        """
        optimizer, weights = None, {}
        if not last:
            optimizer = self.optimizer
            assert optimizer is not None, "the noisy phase has made it"
            weights = {k: local_part(v).to("cpu", copy=True) for k, v in self.distillation.trained_state().items()}
            if self.ranks.count == 1:
                move_state(optimizer, "cpu")  # room for the hard phase's own optimiser
        self.trunk = Trunk(weights, optimizer, self.steps, self.tokens, list(self.log))
        self.phase, self.phase_steps, self.optimizer = "hard", 0, None

    def _return_to_trunk(self) -> None:
        trunk = self.trunk
        assert trunk is not None, "a hard phase has branched off"
        self.steps, self.tokens, self.log = trunk.steps, trunk.tokens, trunk.log
        if trunk.optimizer is not None:
            self.distillation.load_trained_state(trunk.weights)
            if self.ranks.count == 1:
                move_state(trunk.optimizer, self.device)
        self.phase, self.phase_steps, self.optimizer, self.trunk = "noisy", 0, trunk.optimizer, None
        self.ratio += 1

    def _finish(self, cr: float, batches: Iterator[TrainingBatch]) -> None:
        """The steps that finish a checkpoint, the learning rate falling to zero.

        With the gates of inference, the weights or their updates train alone; a soft finish goes on with noise, and all
        that trains.
        """
        self.optimizer = self.optimizer or self._optimizer(gates=self._gates_train)
        self.gated.mode = self.recipe.finish_mode
        count = self.recipe.hard_steps_at(cr)
        for step in range(self.phase_steps, count):
            self.steps += 1
            warm = min(1.0, (step + 1) / self.recipe.warmup)
            self._step(self.optimizer, batches, cr, lr_factor=min(warm, 1.0 - step / count))
            self._end_step()
        self.gated.mode = "noisy"

    def _end_step(self) -> None:
        self.phase_steps += 1
        self.after_step()

    def require_finite(self) -> None:
        """Stop at a loss or a gradient that was not finite; this waits for the device.

        Raises:
            RetrofitError: There was one: the weights are spoilt.
        """
        if self.ranks.average(self._faults.clone()).item():
            raise RetrofitError(
                f"the loss or its gradient was NaN or infinite by step {self.steps} ({self.phase} phase): the training "
                "stops, and what was written before stays; begin again in another --out with a lower --lr and "
                "--gate-lr, or without the text that does it"
            )

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the training depends on, apart from model, recipe and data; nothing is copied.

        Of a training that several processes share it is this one's part.
        """
        trunk = self.trunk
        cuda = self.device.type == "cuda"
        return {
            "place": {
                "ratio": self.ratio,
                "phase": self.phase,
                "phase_steps": self.phase_steps,
                "steps": self.steps,
                "tokens": self.tokens,
                "steps_done": self.steps_done,
                "batches_read": self.batches_read,
            },
            "seconds": self.clock.seconds,
            "log": self.log,
            "weights": {name: local_part(value) for name, value in self.distillation.trained_state().items()},
            "moments": take_moments(self.optimizer),
            "trunk": trunk and {**vars(trunk), "optimizer": None, "moments": take_moments(trunk.optimizer)},
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state(self.device) if cuda else torch.empty(0),
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a training up where `state_dict` was asked for, with the same model, recipe and data."""
        for name, value in state["place"].items():
            setattr(self, name, value)
        self.clock.go_on_from(state["seconds"])
        self.log = list(state["log"])
        self.distillation.load_trained_state(state["weights"])
        self.optimizer = self._optimizer(gates=self._gates_train)
        restore_moments(self.optimizer, state["moments"], self.device)
        if trunk := state["trunk"]:
            optimizer = None
            if trunk["weights"]:
                optimizer = self._optimizer(gates=True)
                restore_moments(
                    optimizer, trunk["moments"], torch.device("cpu") if self.ranks.count == 1 else self.device
                )
            self.trunk = Trunk(trunk["weights"], optimizer, trunk["steps"], trunk["tokens"], trunk["log"])
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)

    @property
    def _gates_train(self) -> bool:
        """Whether the gates' projections train in the present phase."""
        return self.phase == "noisy" or (self.phase == "hard" and self.recipe.finish_mode == "noisy")

    def _optimizer(self, *, gates: bool) -> torch.optim.Optimizer:
        """AdamW over the weights, and over the gates' projections at a rate of their own if they train."""
        r = self.recipe
        weights = [weight for weight in self.gated.weight_parameters() if weight.requires_grad]
        projections = self.gated.gate_parameters() if self.gated.separate and (gates or not weights) else []
        return adamw([(weights, r.lr), (projections, r.gate_lr)])

    def _step(
        self, optimizer: torch.optim.Optimizer, batches: Iterator[TrainingBatch], cr: float, lr_factor: float
    ) -> None:
        """One optimiser step towards a compression ratio, its gradient averaged over ``accumulate`` batches."""
        r = self.recipe
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * lr_factor
        log_due = self.steps % LOG_STEPS == 0 or self.steps == 1
        is_last = self.steps_done + 1 == r.total_steps
        report_due = log_due or is_last or self.clock.since_read > self.report_seconds
        report_due = self.ranks.follow_first(report_due, self.device)
        sums = torch.zeros(2 + r.groups, device=self.device)  # loss, divergence, eviction of each group
        for number in range(r.accumulate):
            batch = next(batches)
            self.distillation.seed_noise(self.steps * r.accumulate + number)
            self.batches_read += 1
            self.tokens += batch.ids.numel()
            self.clock.count_tokens(batch.ids.numel())
            if number % self.ranks.count != self.ranks.rank:
                continue
            found = self._add_gradients(batch, cr)
            self._faults += (~found.loss.isfinite()).float()
            sums += torch.cat([found.loss[None], found.divergence[None], found.share[:, 0]])
        sums = self.ranks.average(sums * self.ranks.count / r.accumulate)
        norm = torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], r.clip)
        self._faults += (~whole_tensor(norm).isfinite()).float()
        optimizer.step()
        # Of the whole model: in the hard phase the gates get gradients that no optimiser clears.
        if graphs := self._graphs_in_use:
            graphs.clear_gradients()
        else:
            self.gated.model.zero_grad(set_to_none=True)
        self.steps_done += 1
        self.clock.count_step()
        # Reading a value waits for the device, so it is done only for steps that are reported.
        loss_mean, kl, *alphas = sums.tolist() if report_due else (0.0, 0.0)
        if log_due:
            self.log.append({"step": self.steps, "mode": self.gated.mode, "cr": cr, "kl": kl, "alpha": alphas})
        if report_due:
            self.observe(self._measure_step(cr, loss_mean, kl, alphas))
            self.require_finite()

    @property
    def _graphs_in_use(self) -> StepGraphs | None:
        """None if steps are launched: while neurons fade, attention sees another part of them in each step."""
        return None if self.phase == "fade" else self.graphs

    def _add_gradients(self, batch: TrainingBatch, cr: float) -> BatchLosses:
        """Losses of a batch, their gradients added to those of the weights."""
        if graphs := self._graphs_in_use:
            return graphs.add_gradients(batch, cr)
        found = self.distillation.losses(batch, cr)
        # Gradients are averaged over processes, so that the mean over all batches is left.
        (found[0] * self.ranks.count / self.recipe.accumulate).backward()  # type: ignore[no-untyped-call]
        return BatchLosses(*(value.detach() for value in found))

    def _measure_step(self, cr: float, loss: float, kl: float, alphas: list[float]) -> StepMetrics:
        """The figures of the step just done; time and tokens are since the last one that was read out."""
        pace, hours_left = self.clock.read(self.recipe.total_steps - self.steps_done)
        return StepMetrics(
            done=self.steps_done,
            total=self.recipe.total_steps,
            step=self.steps,
            mode=self.gated.mode,
            cr=cr,
            loss=loss,
            kl=kl,
            target=self.distillation.target(cr),
            saved=alphas,
            tokens=self.tokens,
            tokens_per_second=pace,
            seconds=self.clock.seconds,
            hours_left=hours_left,
        )
