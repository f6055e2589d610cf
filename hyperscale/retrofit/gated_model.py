"""Gates in training: Gumbel-sigmoid samples while they learn, hard verdicts in the last phase and at inference."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, pad

from hyperscale.methods.core.dmc_merge import MergeConfig
from hyperscale.methods.core.dms_gate import GateConfig, alpha_logits, attach_gates
from hyperscale.methods.core.rotary import take_rope
from hyperscale.retrofit.inline_gates import CODES, GONE, Inside

Mode = Literal["off", "noisy", "hard"]


class GatedModel:
    """A transformers causal LM whose layers evict, or merge, by learned gates.

    Before each layer runs, its gate reads the incoming hidden states, or hands the layer what it needs to decide
    inside its attention (`Inside`). The verdict on the key of token i comes from token i + 1 (the published code's
    convention), so that training and decoding see the same thing.

    Attributes:
        model: The causal LM, gates attached.
        config: The gate's settings.
        left: What attention still sees of borrowed neurons.
        mode: "off" evicts nothing; "noisy" adds logistic noise (the difference of two Gumbels) and keeps
            ``alpha = sigmoid((logit + noise) / tau)``; "hard" evicts iff the logit is above 0, without gradient.
        alphas: After a forward pass, one (batch, sequence, kv_heads) tensor per layer; entry i is the verdict on
            token i, the last one of a row being meaningless.
    """

    def __init__(self, model: Any, config: GateConfig | MergeConfig, *, attach: bool = True) -> None:
        self.model = model
        self.config = config
        self.mode: Mode = "noisy"
        self.left = 0.0
        self.alphas: list[Tensor] = []
        self.separate = isinstance(config, GateConfig) and config.separate
        if attach and self.separate:
            attach_gates(model)
        for layer in model.model.layers:
            layer.register_forward_pre_hook(self._before_layer, with_kwargs=True)
            if not self.separate:
                layer.register_forward_hook(self._after_layer)

    def gate_parameters(self) -> list[nn.Parameter]:
        """The projections of all layers."""
        return [p for name, p in self.model.named_parameters() if "dms_proj_alpha." in name]

    def weight_parameters(self) -> list[nn.Parameter]:
        """Everything else, the gates' norms included."""
        return [p for name, p in self.model.named_parameters() if "dms_proj_alpha." not in name]

    def fade(self, factor: float) -> None:
        """Multiply the rows of the projections that make the borrowed neurons."""
        size = self.model.model.layers[0].self_attn.head_dim
        group = self.model.config.num_attention_heads // self.model.config.num_key_value_heads
        merges = isinstance(self.config, MergeConfig)
        with torch.no_grad():
            for layer in self.model.model.layers:
                attention = layer.self_attn
                made = [(attention.q_proj, size if merges else size * group)]
                if merges:
                    made.append((attention.k_proj, size))
                for projection, every in made:
                    projection.weight[size - 1 :: every] *= factor
                    if projection.bias is not None:
                        projection.bias[size - 1 :: every] *= factor

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

    def _before_layer(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        attention = layer.self_attn
        hidden = args[0] if args else kwargs["hidden_states"]
        if not self.separate:
            return args, self._inside(hidden, kwargs)
        if self.mode == "off":
            attention.key_bias = None
            return None
        assert isinstance(self.config, GateConfig)
        logits = pad(alpha_logits(attention, hidden, self.config)[:, 1:], (0, 0, 0, 1))
        if self.mode == "hard":
            alpha = (logits > 0).float()
            # A leaf that asks for a gradient nobody reads: both modes then share one compiled graph.
            bias = (alpha * GONE).requires_grad_(torch.is_grad_enabled())
        else:
            z = (logits + self._noise(logits)) / self.config.tau
            alpha, bias = torch.sigmoid(z), logsigmoid(-z).clamp_min(GONE)
        attention.key_bias = bias
        self.alphas.append(alpha)
        return None

    def _inside(self, hidden: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """A layer's arguments, with what it needs to decide by itself and to apply RoPE after that."""
        cos, sin = kwargs["position_embeddings"]
        document = kwargs["packed"].document
        first = torch.ones_like(document, dtype=torch.bool)
        first[:, 1:] = document[:, 1:] != document[:, :-1]
        shape = hidden.shape[0], self.model.config.num_key_value_heads, hidden.shape[1]
        noise = self._noise(torch.empty(shape, device=hidden.device))
        mode, left = (torch.tensor(each, device=hidden.device) for each in (CODES[self.mode], self.left))
        inside = Inside(self.config, cos, sin, noise, first, mode, left)
        return {**kwargs, "position_embeddings": take_rope((cos, sin))[1], "inside": inside}

    def _noise(self, like: Tensor) -> Tensor:
        """The difference of two Gumbels; the verdicts that a layer shares share their noise."""
        shared = isinstance(self.config, GateConfig) and self.config.per == "layer"
        if not shared:
            return torch.logit(torch.rand_like(like), eps=1e-6)
        # Heads are dimension 2 of what a projection says, and dimension 1 of what is decided inside.
        one = like[..., :1] if self.separate else like[:, :1]
        return torch.logit(torch.rand_like(one), eps=1e-6).expand_as(like)

    def _after_layer(self, layer: Any, args: tuple[Any, ...], output: Any) -> None:
        self.alphas.append(layer.self_attn.alpha)
