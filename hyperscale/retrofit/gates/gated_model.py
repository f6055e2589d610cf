"""Attaches gates to a model in training: Gumbel-sigmoid samples while they learn, hard decisions in the last phase."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, pad

from hyperscale.methods.core.dmc_merge import MergeConfig
from hyperscale.methods.core.dms_gate import GateConfig, alpha_logits, attach_gates
from hyperscale.methods.core.rotary import take_rope
from hyperscale.retrofit.gates.inline_gates import CODES, GONE, InlineGates

Mode = Literal["off", "noisy", "hard"]


class GatedModel:
    """A transformers causal LM whose layers evict, or merge, by learned gates.

    Before each layer runs, its gate reads the incoming hidden states, or hands the layer what it needs to decide
    inside its attention (`InlineGates`). The verdict on the key of token i comes from token i + d, d being the format's
    (`hyperscale.methods.core.dms_config`), so that training and decoding see the same thing.

    Attributes:
        model: The causal LM, gates attached.
        config: The gate's settings.
        visible: The part of borrowed neurons that attention still sees.
        mode: "off" evicts nothing; "noisy" adds logistic noise (the difference of two Gumbels) and keeps
            ``alpha = sigmoid((logit + noise) / tau)``; "hard" evicts iff the logit is above 0, without gradient.
        alphas: After a forward pass, one (batch, sequence, kv_heads) tensor per layer; entry i is the verdict on
            token i, the last d of a row being meaningless.
    """

    def __init__(self, model: Any, config: GateConfig | MergeConfig, *, attach: bool = True) -> None:
        self.model = model
        self.config = config
        self.mode: Mode = "noisy"
        self.visible = 0.0
        self.alphas: list[Tensor] = []
        self.separate = isinstance(config, GateConfig) and config.separate
        self._decide: Callable[..., tuple[Tensor, Tensor]] = decide_with_noise
        if attach and self.separate:
            attach_gates(model)
        for layer in model.model.layers:
            layer.register_forward_pre_hook(self._before_layer, with_kwargs=True)
            if not self.separate:
                layer.register_forward_hook(self._after_layer)

    def compile_decisions(self) -> None:
        """Fuse the arithmetic of noisy gates into few kernels; one compilation serves all layers."""
        self._decide = torch.compile(decide_with_noise, dynamic=False)

    def gate_parameters(self) -> list[nn.Parameter]:
        """The projections of all layers."""
        return [p for name, p in self.model.named_parameters() if "dms_proj_alpha." in name]

    def weight_parameters(self) -> list[nn.Parameter]:
        """Everything else, the gates' norms included."""
        return [p for name, p in self.model.named_parameters() if "dms_proj_alpha." not in name]

    def scale_neurons(self, factor: float) -> None:
        """Multiply the rows of the projections that make the borrowed neurons.

        DMS borrows the last dimension of the first query head of each group; DMC the last dimension of each key, for
        its decisions, and of each query head, for its weights.
        """
        head_dim = self.model.model.layers[0].self_attn.head_dim
        group = self.model.config.num_attention_heads // self.model.config.num_key_value_heads
        merges = isinstance(self.config, MergeConfig)
        with torch.no_grad():
            for layer in self.model.model.layers:
                attention = layer.self_attn
                # Projections, and the distance between the rows of two neurons.
                strides = [(attention.q_proj, head_dim if merges else head_dim * group)]
                if merges:
                    strides.append((attention.k_proj, head_dim))
                for projection, stride in strides:
                    projection.weight[head_dim - 1 :: stride] *= factor
                    if projection.bias is not None:
                        projection.bias[head_dim - 1 :: stride] *= factor

    def forward(self, **inputs: Any) -> Tensor:
        """Logits of the model, (batch, sequence, vocabulary); fills `alphas`."""
        self.alphas = []
        logits: Tensor = self.model(**inputs, use_cache=False).logits
        return logits

    def hidden(self, **inputs: Any) -> Tensor:
        """The last hidden states, before the output layer, (batch, sequence, hidden); fills `alphas`."""
        self.alphas = []
        hidden: Tensor = self.model.model(**inputs, use_cache=False).last_hidden_state
        return hidden

    def _before_layer(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        attention = layer.self_attn
        hidden = args[0] if args else kwargs["hidden_states"]
        if not self.separate:
            return args, self._with_inline_gates(hidden, kwargs)
        if self.mode == "off":
            attention.key_bias = None
            return None
        assert isinstance(self.config, GateConfig)
        within = None
        if (later := self.config.decision_offset) > 1:
            # The last d tokens of each document, of whom only the last one counts nowhere.
            document = kwargs["masks"].document
            within = torch.zeros(document.shape, dtype=torch.bool, device=document.device)
            within[:, :-later] = document[:, later:] == document[:, :-later]
        if self.mode == "hard":
            alpha = (shifted_logits(attention, hidden, self.config, within) > 0).float()
            # A leaf that asks for a gradient nobody reads: both modes then share one compiled graph.
            bias = (alpha * GONE).requires_grad_(torch.is_grad_enabled())
        else:
            heads = 1 if self.config.per == "layer" else self.model.config.num_key_value_heads
            uniform = torch.rand(*hidden.shape[:2], heads, device=hidden.device)
            alpha, bias = self._decide(attention, hidden, uniform, self.config, within)
        attention.key_bias = bias
        self.alphas.append(alpha)
        return None

    def _with_inline_gates(self, hidden: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """A layer's arguments, with what it needs to decide by itself and to apply RoPE after that."""
        cos, sin = kwargs["position_embeddings"]
        document = kwargs["masks"].document
        # What a document's first d tokens decide on is in another document.
        later = self.config.decision_offset if isinstance(self.config, GateConfig) else 1
        first = torch.ones_like(document, dtype=torch.bool)
        first[:, later:] = document[:, later:] != document[:, : document.shape[1] - later]
        shape = hidden.shape[0], self.model.config.num_key_value_heads, hidden.shape[1]
        noise = self._noise(torch.empty(shape, device=hidden.device))
        # As tensors, so that another value is no reason to compile again.
        mode = torch.full((), CODES[self.mode], device=hidden.device)
        visible = torch.full((), self.visible, device=hidden.device)
        gates = InlineGates(self.config, cos, sin, noise, first, mode, visible)
        # The layer gets a RoPE that turns nothing; the gates apply the true one after they have read the neurons.
        return {**kwargs, "position_embeddings": take_rope((cos, sin))[1], "inline_gates": gates}

    def _noise(self, like: Tensor) -> Tensor:
        """The noise of what is decided inside attention, (batch, kv_heads, sequence); shared verdicts share theirs."""
        per_layer = isinstance(self.config, GateConfig) and self.config.per == "layer"
        return logistic_noise(torch.rand_like(like[:, :1] if per_layer else like)).expand_as(like)

    def _after_layer(self, layer: Any, args: tuple[Any, ...], output: Any) -> None:
        self.alphas.append(layer.self_attn.alpha)


def logistic_noise(uniform: Tensor) -> Tensor:
    """The difference of two Gumbels, which is logit(u) of a uniform u."""
    return torch.logit(uniform, eps=1e-6)


def shifted_logits(attention: nn.Module, hidden: Tensor, config: GateConfig, within: Tensor | None = None) -> Tensor:
    """Logits by the token that they decide on: that from hidden state i + d decides on token i.

    Args:
        attention: An attention module with gates attached.
        hidden: (batch, sequence, hidden), before the layer's input norm.
        config: The gate's settings.
        within: (batch, sequence) where token i + d is of the same document; all others are kept. None where the last
            token of a document does not matter, d being at most 1.

    Returns:
        (batch, sequence, kv_heads), float32; nothing decides on the last d tokens.
    """
    later = config.decision_offset
    logits = pad(alpha_logits(attention, hidden, config)[:, later:], (0, 0, 0, later))
    return logits if within is None else logits.masked_fill(~within[..., None], GONE)


def decide_with_noise(
    attention: nn.Module, hidden: Tensor, uniform: Tensor, config: GateConfig, within: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Alpha and log(1 - alpha), each (batch, sequence, kv_heads), of gates in training.

    Args:
        attention: As for `shifted_logits`, and so ``hidden``, ``config`` and ``within``.
        hidden: The layer's input.
        uniform: Uniform numbers, (batch, sequence, kv_heads), or 1 in place of heads that share a verdict.
        config: The gate's settings.
        within: What is decided on within its document.
    """
    z = (shifted_logits(attention, hidden, config, within) + logistic_noise(uniform)) / config.tau
    return torch.sigmoid(z), logsigmoid(-z).clamp_min(GONE)
