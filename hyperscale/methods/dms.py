"""Dynamic Memory Sparsification: learned eviction per head, delayed by a window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.kv.prefilled import NEVER, PrefilledPrompt
from hyperscale.methods.core.base import DecodeStep, Entrant, HostModel, LayerInput, Method, State
from hyperscale.methods.core.dms_config import FORMATS, GateConfig, has_gates
from hyperscale.methods.core.dms_gate import alpha_logits, borrowed_logits, rotate_borrowed
from hyperscale.methods.core.rotary import Projected, require_rope


class _Delayed(State):
    """The entries of the last w + 1 positions and the verdicts pending on them.

    The verdict on position k is known at query k + d, d being the gate's ``decision_offset``, and takes effect at query
    k + w + 1, when the entry leaves the window. Until then a ring keeps, at index k mod (w + 1), the slot in which
    position k was stored (``tensors[0]``) and whether it is to be evicted (``tensors[1]``): (layers, max_chains,
    kv_heads, w + 1) each. At query q the entry of position q - w - 1 has the index of q itself; if it is evicted, the
    new entry takes its slot. With d = w + 1 that is the entry which the query's own verdict is on.
    """

    capturable = True

    def __init__(self, method: "DMS", host: HostModel) -> None:
        super().__init__(method, host)
        # A configuration without the keys of DMS, or with them but without the tensors that they speak of.
        has_keys = has_gates(host.config)
        gate = method.gate(host.config) if has_keys else GateConfig()
        if not has_keys or (gate.separate and not hasattr(host.attentions[0], "dms_proj_alpha")):
            raise MethodError("dms needs a checkpoint retrofitted with DMS: this model has no gates")
        self._host, self._gate = host, gate
        self.rotates = not gate.separate
        if self.rotates:
            require_rope(host.attentions, host.other_rope, method.rope_rule(host.config))
        self._ring = gate.window + 1
        shape = (host.layers, host.max_chains, host.kv_heads, self._ring)
        self._slot = torch.zeros(shape, dtype=torch.int32, device=host.device)
        self._evict = torch.zeros(shape, dtype=torch.bool, device=host.device)
        self.tensors = (self._slot, self._evict)

    def rotate(self, layer: int, projected: Projected) -> tuple[Tensor, Tensor, Tensor]:
        self._borrowed = borrowed_logits(projected.queries, self._host.kv_heads, self._gate)
        return rotate_borrowed(projected, self._gate)

    def _logits(self, layer: int, hidden: Tensor) -> Tensor:
        """(batch, tokens, kv_heads) of the layer that is running."""
        if self.rotates:
            return self._borrowed
        return alpha_logits(self._host.attentions[layer], hidden, self._gate)

    def expiry(self, layer: int, hidden: Tensor) -> Tensor:
        length = hidden.shape[1]
        logits = self._logits(layer, hidden)[0].T
        # Position k, if it is evicted, expires at k + w + 1.
        after_window = torch.arange(self._ring, self._ring + length, device=hidden.device).expand(len(logits), length)
        expiry = torch.full_like(after_window, NEVER)
        # The verdict on key i comes from hidden state i + d; those on the last d keys are not known yet.
        later = self._gate.decision_offset
        known = max(length - later, 0)
        expiry[:, :known] = torch.where(logits[:, later:] > 0, after_window[:, :known], NEVER)
        return expiry

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: PrefilledPrompt) -> None:
        chains = slice(first, first + len(entrants))
        # Young entries are all live and stored last, in order of position. An entry on which the verdict is still to
        # come is young even if w is 0.
        count = max(self._ring - 1, self._gate.decision_offset)
        young = torch.arange(max(prompt.length - count, 0), prompt.length, device=prompt.lens.device)
        index = young % self._ring
        slots = prompt.lens[..., None] - (prompt.length - young)  # (layers, kv_heads, young)
        self._evict[:, chains] = False
        self._slot[:, chains, :, index] = slots[:, None].to(torch.int32)
        if prompt.expiry is not None:
            self._evict[:, chains, :, index] = (prompt.expiry[..., young] != NEVER)[:, None]

    def begin(self, step: DecodeStep) -> None:
        self._lens = step.lens
        chains, heads = step.lens.shape[1:]
        self._now = (step.positions % self._ring)[:, None, None].expand(chains, heads, 1)
        decided = step.positions - self._gate.decision_offset
        self._decided = (decided % self._ring)[:, None, None].expand(chains, heads, 1)
        self._is_there = (decided >= 0)[:, None, None]  # else the verdict is on nothing

    def write_slots(self, layer: int, layer_input: LayerInput) -> Tensor:
        lens = self._lens[layer]
        chains = len(lens)
        verdict = self._logits(layer, layer_input.hidden)[:chains, 0, :, None] > 0
        slot, evict = self._slot[layer, :chains], self._evict[layer, :chains]
        if self._gate.decision_offset:
            # This token's hidden state says what becomes of the entry d before. With d = w + 1 that is the entry which
            # leaves now, so the verdict must be stored before it is looked up.
            evict.scatter_(2, self._decided[:chains], verdict & self._is_there[:chains])
        leaves = evict.gather(2, self._now)[..., 0]
        target = torch.where(leaves, slot.gather(2, self._now)[..., 0], lens)
        slot.scatter_(2, self._now, target[..., None].to(torch.int32))
        # What becomes of the new entry is said by a later token, or by this one.
        evict.scatter_(2, self._now, torch.zeros_like(verdict) if self._gate.decision_offset else verdict)
        return target


@dataclass
class DMS(Method):
    """Evicts entry k of a head iff its learned logit is above 0, once the query is past k + w.

    logit(k) = scale * x_{k+d} - offset, per layer and KV head, with x = Linear(RMSNorm(h)) of the layer's input h, or a
    neuron borrowed from the query (`hyperscale.methods.core.dms_gate`; the checkpoint says which); key k is visible to
    query q while q - k <= w, and afterwards iff logit(k) <= 0. d is 1 in NVIDIA's format and 0 in FastDMS's
    (`hyperscale.methods.core.dms_config`); w + 1 decides on a token as it leaves. The rule holds in prefill and in
    decode. The compression ratio is the checkpoint's own: it is a property of the trained gates.

    Parameters:
        cr: Nominal compression ratio, which chooses the checkpoint; the window and the gates are the checkpoint's.
        format: Which token decides, and what is seen of a borrowed neuron: "auto", as the checkpoint's files say;
            "nvidia" or "fastdms" for a checkpoint whose files do not.
    """

    name = "dms"
    summary = "Dynamic Memory Sparsification: learned, per head, delayed by a window"
    source = "arXiv 2506.05345, section 3; NVIDIA Model-Optimizer, experimental/dms; shisa-ai/FastDMS"
    retrofit_kind = "dms"
    prefills_densely = False
    state = _Delayed

    cr: float = 8.0
    format: str = "auto"

    def __post_init__(self) -> None:
        """Check the format.

        Raises:
            MethodError: There is no such format.
        """
        super().__post_init__()
        if self.format not in ("auto", *FORMATS):
            raise MethodError(f"format of dms must be one of auto, {', '.join(FORMATS)}, not {self.format!r}")

    def params(self) -> dict[str, Any]:
        """See `Method.params`; a format that the checkpoint states itself is none of the run's."""
        return {name: value for name, value in super().params().items() if (name, value) != ("format", "auto")}

    def rope_rule(self, config: Any) -> str:
        """See `Method.rope_rule`: a projection does not go by it, a borrowed neuron does."""
        return "dms with borrowed neurons" if has_gates(config) and not self.gate(config).separate else ""

    def gate(self, config: Any) -> GateConfig:
        """The settings of a checkpoint's gates.

        Args:
            config: Its transformers configuration.

        Raises:
            ModelError: It has no gates, or its keys make no sense.
        """
        gate = GateConfig.from_hf(config)
        return next((gate.in_format(form) for form in FORMATS if form == self.format), gate)
