"""Self-attention over lists of their own lengths, with the gates of DMS where the checkpoint has them."""

from typing import Any

import torch
from torch import Tensor, nn
from vllm.config import get_current_vllm_config
from vllm.distributed import get_tensor_model_parallel_rank
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import ColumnParallelLinear

from hyperscale.engines.vllm.model.layer import RaggedAttention
from hyperscale.engines.vllm.options import Options
from hyperscale.methods.core.dms_config import GateConfig, has_gates
from hyperscale.methods.core.dms_gate import gate_logits
from hyperscale.utils import counter_rng


class RaggedSelfAttention(nn.Module):
    """A stock self-attention module with lists of their own lengths, and with gates where the checkpoint has them.

    The verdict on token i comes from hidden state i + d, as the checkpoint's format says: from a projection of the
    hidden states before the layer's input norm, or from a borrowed neuron, the last one of each KV head's first query
    head, which attention then does not see (`hyperscale.methods.core.dms_config`).
    """

    list_numbers: Tensor

    def __init__(self, stock: Any, config: Any, prefix: str) -> None:
        """Take over a stock module's parts.

        Args:
            stock: ``Qwen2Attention``, ``Qwen3Attention`` or ``LlamaAttention``.
            config: The transformers configuration.
            prefix: The module's name.
        """
        super().__init__()
        self.qkv_proj: Any = stock.qkv_proj
        self.o_proj: Any = stock.o_proj
        self.rotary_emb: Any = stock.rotary_emb
        self.head_dim: int = stock.head_dim
        self.q_size, self.kv_size = stock.q_size, stock.kv_size
        if hasattr(stock, "q_norm"):
            self.q_norm: Any = stock.q_norm
            self.k_norm: Any = stock.k_norm
        self.attn = RaggedAttention(stock.attn, f"{prefix}.attn")
        self.heads: int = stock.num_kv_heads
        options = Options.read(get_current_vllm_config().additional_config, config)
        gated = has_gates(config)
        self.gate = GateConfig.from_hf(config) if gated else GateConfig()
        # Where verdicts come from: "projection", "neuron", "hashed", "merges", or "" for a method without verdicts.
        self.verdict_source = ""
        if options.method == "dms":
            self.verdict_source = "projection" if self.gate.separate else "neuron"
        if options.method == "dmc":
            self.verdict_source = "merges"
        if options.method == "hashed":
            self.verdict_source, self.evicted_share = "hashed", 1 - 1 / options.cr
            # Numbers of this layer's lists among those of the whole model: the hash must not depend on the ranks.
            first = self.attn.layer * stock.total_num_kv_heads + get_tensor_model_parallel_rank() * self.heads
            self.register_buffer("list_numbers", torch.arange(first, first + self.heads), persistent=False)
        # Weights of the gates exist even if the method leaves them unused: the checkpoint has them to be loaded.
        if gated and self.gate.separate:
            self.dms_proj_alpha: Any = ColumnParallelLinear(
                config.hidden_size,
                stock.total_num_kv_heads,
                bias=bool(getattr(config, "attention_bias", False)),
                quant_config=None,
                prefix=f"{prefix}.dms_proj_alpha",
            )
            self.dms_proj_alpha_norm: Any = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, positions: Tensor, hidden_states: Tensor, before_norm: Tensor) -> Tensor:
        """Attend.

        Args:
            positions: (tokens,).
            hidden_states: (tokens, hidden), after the layer's input norm.
            before_norm: (tokens, hidden), in front of it.

        Returns:
            (tokens, hidden).
        """
        qkv, _ = self.qkv_proj(hidden_states)
        q, k, v = qkv.split([self.q_size, self.kv_size, self.kv_size], dim=-1)
        if hasattr(self, "q_norm"):
            q = self.q_norm(q.reshape(*q.shape[:-1], -1, self.head_dim)).view(q.shape)
            k = self.k_norm(k.reshape(*k.shape[:-1], -1, self.head_dim)).view(k.shape)
        # Verdicts on each token, or on the one before it, as logits: above 0 evicts.
        logits: Tensor | None = None
        if self.verdict_source == "projection":
            alpha, _ = self.dms_proj_alpha(self.dms_proj_alpha_norm(before_norm))
            logits = gate_logits(alpha, self.gate)
        elif self.verdict_source == "neuron":
            logits = gate_logits(self._borrowed_neuron(q), self.gate)
            if self.gate.zeroing != "never":
                q = self._without_neuron(q)
        elif self.verdict_source == "hashed":
            uniform = counter_rng.uniform(counter_rng.mix(self.list_numbers, positions[:, None].long()))
            logits = torch.where(uniform < self.evicted_share, 1.0, -1.0).to(torch.float32)
        elif self.verdict_source == "merges":  # of keys as they are before RoPE
            k, v, logits = self.attn.merge(positions, q, k, v)
            q, k = self._without_last(q), self._without_last(k)
        q, k = self.rotary_emb(positions, q, k)
        if self.verdict_source == "merges":
            q, k = self._without_last(q), self._without_last(k)
        if self.verdict_source == "neuron" and self.gate.zeroing == "before_and_after_rope":
            q = self._without_neuron(q)  # the rotation has mixed another neuron into the one set to zero
        output: Tensor = self.o_proj(self.attn(q.contiguous(), k.contiguous(), v.contiguous(), logits))[0]
        return output

    def _without_last(self, vectors: Tensor) -> Tensor:
        """Vectors of all heads with their last neuron at zero, which decides on merges or weighs them."""
        by_head = vectors.reshape(len(vectors), -1, self.head_dim).clone()
        by_head[..., -1] = 0
        return by_head.view(vectors.shape)

    def _borrowed_neuron(self, q: Tensor) -> Tensor:
        """The last neuron of each KV head's first query head, (tokens, heads)."""
        neuron: Tensor = q.reshape(q.shape[0], self.heads, -1, self.head_dim)[:, :, 0, -1]
        return neuron

    def _without_neuron(self, q: Tensor) -> Tensor:
        """Queries with that neuron at zero; as ``q``, (tokens, query heads * head_dim)."""
        grouped_q = q.reshape(q.shape[0], self.heads, -1, self.head_dim).clone()
        grouped_q[:, :, 0, -1] = 0
        return grouped_q.view(q.shape)
