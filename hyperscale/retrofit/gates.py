"""Gates in training: Gumbel-sigmoid samples while they learn, hard verdicts in the last phase and at inference."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, pad

from hyperscale.methods.gate import GateConfig, alpha_logits, attach_gates

Mode = Literal["off", "noisy", "hard"]
#: Score added to an evicted key; finite so that bfloat16 arithmetic on it stays exact.
GONE = -1e4


class GatedModel:
    """A transformers causal LM whose layers evict by learned gates.

    Before each layer runs, its gate reads the incoming hidden states. The verdict on the key of token i comes from
    hidden state i + 1 (the published code's convention), so that training and decoding see the same thing.

    Attributes:
        model: The causal LM, gates attached.
        config: The gate's settings.
        mode: "off" evicts nothing; "noisy" adds logistic noise (the difference of two Gumbels) and keeps
            ``alpha = sigmoid((logit + noise) / tau)``; "hard" evicts iff the logit is above 0, without gradient.
        alphas: After a forward pass, one (batch, sequence, kv_heads) tensor per layer; entry i is the verdict on
            token i, the last one of a row being meaningless.
    """

    def __init__(self, model: Any, config: GateConfig, *, attach: bool = True) -> None:
        self.model = model
        self.config = config
        self.mode: Mode = "noisy"
        self.alphas: list[Tensor] = []
        if attach:
            attach_gates(model)
        for layer in model.model.layers:
            layer.register_forward_pre_hook(self._before_layer, with_kwargs=True)

    def gate_parameters(self) -> list[nn.Parameter]:
        """The projections of all layers."""
        return [p for name, p in self.model.named_parameters() if "dms_proj_alpha." in name]

    def weight_parameters(self) -> list[nn.Parameter]:
        """Everything else, the gates' norms included."""
        return [p for name, p in self.model.named_parameters() if "dms_proj_alpha." not in name]

    def forward(self, **inputs: Any) -> Tensor:
        """Logits of the model; fills `alphas`."""
        self.alphas = []
        logits: Tensor = self.model(**inputs, use_cache=False).logits
        return logits

    def hidden(self, **inputs: Any) -> Tensor:
        """The last hidden states, before the output layer; fills `alphas`."""
        self.alphas = []
        hidden: Tensor = self.model.model(**inputs, use_cache=False).last_hidden_state
        return hidden

    def _before_layer(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        attention = layer.self_attn
        if self.mode == "off":
            attention.key_bias = None
            return
        hidden = args[0] if args else kwargs["hidden_states"]
        logits = pad(alpha_logits(attention, hidden, self.config)[:, 1:], (0, 0, 0, 1))
        if self.mode == "hard":
            alpha = (logits > 0).float()
            # A leaf that asks for a gradient nobody reads: both modes then share one compiled graph.
            bias = (alpha * GONE).requires_grad_(torch.is_grad_enabled())
        else:
            noise = torch.logit(torch.rand_like(logits), eps=1e-6)
            z = (logits + noise) / self.config.tau
            alpha, bias = torch.sigmoid(z), logsigmoid(-z).clamp_min(GONE)
        attention.key_bias = bias
        self.alphas.append(alpha)
