"""The contract of a KV-compression method: `Method` is its configuration, `State` its memory of the chains in flight.

A `Method` is cheap and made anew for every run. When an engine starts, `Method.start` gives the `State` that one batch
of chains carries along. All its tensors have one row a chain, and the engine moves the rows when chains come and go.

What an engine calls, in this order:

1. Prefill, one prompt at a time and layer by layer. A rule that is a function of hidden states gives each entry an
   *expiry*, the first query position that no longer sees it (`State.expiry`). A rule that looks at the whole prompt is
   prefilled densely and says afterwards what stays (`State.prune_prompt`).
2. `State.admit`, when chains that start from the prompt enter the batch.
3. Decode steps. In each, `State.begin` is called once, and then, layer by layer:

   - `State.rotate`, only if the state ``rotates``: queries, keys and values before RoPE go in;
   - `State.write_slots` names, for every row (one KV head of one chain), the slot that its new entry is written to.
     That is the row's length to append, or a live entry's slot to evict that entry. So a row grows by one entry or by
     none;
   - `State.merge` gives the entry that is written, if it is not simply the token's own;
   - `State.select` names the entries that are read, if they are not all;
   - `State.observe` gets the attention weights, if the method ``needs_attention``.
4. Between two steps, `State.chains_to_prune` says which chains are too long, and `State.prune` what stays of them.

An *evictor* works through expiry, prune_prompt, write_slots and prune; a *merger* also through merge or rotate; a
*selector* evicts nothing and works through select.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hyperscale.errors import MethodError
from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.kv.row_entries import RowEntries
from hyperscale.methods.core.prefill_view import PrefillView
from hyperscale.methods.core.rotary import Projected


@dataclass(frozen=True)
class HostModel:
    """The model that a method is started on.

    Attributes:
        attentions: The attention module of each layer.
        config: The model's transformers configuration.
        kv_heads: KV heads of a layer.
        max_chains: The most chains in flight at once.
        device: Where state tensors live.
        dtype: Type of queries, keys and values.
        rotary: The model's rotary embedding, of one frequency per two entries of a head's dimension.
        other_rope: What the model has in the place of RoPE as `hyperscale.methods.core.rotary.rotate` computes it, in
            words for the user; "" if it has that.
    """

    attentions: Sequence[nn.Module]
    config: Any
    kv_heads: int
    max_chains: int
    device: torch.device
    dtype: torch.dtype
    rotary: nn.Module | None = None
    other_rope: str = ""

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.attentions)


@dataclass(frozen=True)
class Entrant:
    """One chain that enters the batch.

    Attributes:
        noise_key: Noise key of (seed, problem, chain).
        L: The most new tokens.
    """

    noise_key: int
    L: int


@dataclass(frozen=True)
class DecodeStep:
    """One decode step of all chains, before anything is written.

    Attributes:
        positions: (chains,) int64, position q of the token being processed.
        lens: (layers, chains, kv_heads) int64, live entries of each row; not to be changed. It is a view of the cache's
            own counts, so after a layer has been written it includes the new entry.
    """

    positions: Tensor
    lens: Tensor


@dataclass(frozen=True)
class LayerInput:
    """What one layer processes in a decode step: the newest token of every chain.

    Attributes:
        hidden: (chains or more, 1, hidden), the layer's input, before its norm. Rows past the chains are padding that
            makes the arithmetic independent of the batch: drop them from what is computed.
        queries: (chains, query_heads, head_dim), after RoPE.
        keys: (chains, kv_heads, head_dim), after RoPE.
        values: (chains, kv_heads, head_dim).
        scale: Factor on the attention scores.
        width: The most slots that a row of the layer has room for.
    """

    hidden: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor
    scale: float
    width: int


class State(ABC):
    """What a method keeps for the chains in flight; see the module for the order of calls.

    A subclass that reads parameters narrows the type of ``method`` by an annotation.

    Attributes:
        method: The method that started it.
        tensors: All per-chain tensors, each (any, max_chains, …): the engine moves rows along dimension 1. A state that
            replaces a tensor by a wider one must put it here.
        rotates: Whether RoPE is left to `rotate`.
        capturable: Whether the hooks of a decode step, and `chains_to_prune`, can be recorded in a CUDA graph: they
            wait for nothing, their shapes follow from those of their arguments alone, and once `admit` or `reserve` has
            been called for a width they replace no tensor. Chains of which all tensors and lengths are 0 are padding.
    """

    capturable: ClassVar[bool] = False
    method: "Method"
    tensors: Sequence[Tensor] = ()
    rotates: bool = False

    def __init__(self, method: "Method", host: HostModel) -> None:
        """An empty state.

        Raises:
            MethodError: The method cannot run on this model.
        """
        self.method = method

    def reserve(self, slots: int, tokens: int) -> None:  # noqa: B027  # optional
        """Make all tensors so large that none is replaced later, as under a CUDA graph, which knows their addresses.

        Args:
            slots: The most slots of a row.
            tokens: The most tokens of a chain, its prompt included.
        """

    # -- prefill ----------------------------------------------------------------------------------------------------

    def rotate(self, layer: int, projected: Projected) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as attention shall see them, RoPE applied; the first hook of a layer.

        Called in prefill and in decode, and only if the state ``rotates``.
        """
        return projected.rope(projected.queries), projected.rope(projected.keys), projected.values

    def expiry(self, layer: int, hidden: Tensor) -> Tensor | None:
        """When the entries of a prompt expire.

        Args:
            layer: Layer index.
            hidden: (1, P, hidden), the layer's input, before its norm.

        Returns:
            (kv_heads, P) int64: key k is visible to query q iff k <= q < expiry; None if the prompt is prefilled
            densely.
        """
        return None

    def prune_prompt(self, layer: int, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        """What of a densely prefilled prompt stays; called layer by layer, so that only one layer is ever held whole.

        Returns:
            (kv_heads, P) bool, or None to keep everything; and (kv_heads, P) float32 by position, or None, which
            `admit` gets back as ``prompt.scores``.
        """
        return None, None

    def prune_prompt_layers(self, layers: range, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        """`prune_prompt` of several layers at once, for an engine that has them all.

        Args:
            layers: The layers.
            view: All of them: its tensors have a row for each.

        Returns:
            As `prune_prompt`, with a row for each layer.
        """
        pruned = [self.prune_prompt(layer, view.row(index)) for index, layer in enumerate(layers)]
        live, scores = ([part for part in parts if part is not None] for parts in zip(*pruned, strict=True))
        return torch.stack(live) if live else None, torch.stack(scores) if scores else None

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: PrefilledPrompt) -> None:  # noqa: B027  # optional
        """Set the state of chains ``first``, ``first + 1``, … that start from ``prompt``, the one prefilled last."""

    # -- decode -----------------------------------------------------------------------------------------------------

    def begin(self, step: DecodeStep) -> None:  # noqa: B027  # optional
        """Called once before each decode step."""

    @abstractmethod
    def write_slots(self, layer: int, layer_input: LayerInput) -> Tensor:
        """Where each row of a layer writes its new entry in this step.

        Returns:
            (chains, kv_heads) int64.
        """

    def planned_slots(self) -> Tensor | None:
        """What `write_slots` returns in all layers of the step that has begun, if their inputs have no part in it.

        An engine may ask for these instead, before the first layer has run.

        Returns:
            (layers, chains, kv_heads) int64, any strides; None if `write_slots` is to be called.
        """
        return None

    def merge(self, layer: int, layer_input: LayerInput) -> tuple[Tensor, Tensor]:
        """Key and value that are written, after `write_slots`: each (chains, kv_heads, head_dim)."""
        return layer_input.keys, layer_input.values

    def select(self, layer: int, layer_input: LayerInput) -> Tensor | None:
        """What is read in this step, after `merge`.

        Returns:
            (chains, kv_heads, group, `LayerInput.width`) bool by slot, slots without an entry being ignored; None for
            all.
        """
        return None

    def observe(self, layer: int, weights: Tensor) -> None:  # noqa: B027  # optional
        """Attention of the step, if the method ``needs_attention``.

        Args:
            layer: Layer index.
            weights: (chains, kv_heads, group, width) float32 by slot, 0 where there is no entry.
        """

    # -- between two steps ------------------------------------------------------------------------------------------

    def chains_to_prune(self, step: DecodeStep) -> Tensor | None:
        """Which chains are to be pruned before the step that comes next.

        Returns:
            (chains,) bool on the device, or None if this method never prunes.
        """
        return None

    def prune(self, layers: Tensor, chains: Tensor, rows: RowEntries) -> Tensor:
        """What stays of some chains to prune.

        A state with tables by slot must reorder them as the cache does: by `hyperscale.kv.prefilled.live_first_order`.

        Args:
            layers: (batch,) int64, the layer of each row of the batch; one call may serve several.
            chains: (batch,) int64, the number of each one's chain.
            rows: Their entries.

        Returns:
            (batch, kv_heads, slots) bool, False where nothing lives.
        """
        raise AssertionError("a state that names chains to prune must prune them")


@dataclass
class Method(ABC):
    """A KV-compression method. Its fields are its parameters, all with defaults; ``cr`` comes first.

    A subclass is a dataclass too. Its docstring is its rule and ends with the parameters that it adds, under
    "Parameters:" as here; `hyperscale methods NAME` shows both, and inherited parameters besides. It may give inherited
    ones other defaults, and checks its own in ``__post_init__``. An inherited field that is no parameter of the
    subclass is declared again with ``init=False``.

    Attributes:
        name: The name it is registered under.
        summary: One line for listings.
        source: Paper, equation, reference code.
        kind: "evictor": memory and reads fall; "selector": only reads fall; "merger": entries are combined.
        state: The class of its state.
        needs_attention: Whether the rule looks at attention weights.
        weighs_prompts: Whether all that `State.prune_prompt` looks at of a prompt's queries is `PrefillView.received`.
        prefills_densely: Whether a prompt attends to all of itself, and is evicted from afterwards.
        retrofit_kind: Kind of retrofit that the model must be: "dms", "dmc"; None if any model will do.
        length_invariant: Whether the rule is independent of the maximum length, so that a long chain's beginning is the
            same as a shorter chain and may stand for it.

    Parameters:
        cr: Nominal compression ratio, at least 1.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    kind: ClassVar[Literal["evictor", "selector", "merger"]] = "evictor"
    state: ClassVar[type[State]]
    needs_attention: ClassVar[bool] = False
    retrofit_kind: ClassVar[str | None] = None
    weighs_prompts: ClassVar[bool] = False
    prefills_densely: ClassVar[bool] = True

    cr: float = 1.0

    def __post_init__(self) -> None:
        if not self.cr >= 1:  # not `self.cr < 1`, which is false if it is not a number
            raise MethodError(f"the compression ratio of {self.name} must be at least 1, not {self.cr}")
        self.cr = float(self.cr)

    @property
    def length_invariant(self) -> bool:
        """See the class; may depend on parameters."""
        return True

    @classmethod
    def parameters(cls) -> list[Field[Any]]:
        """The fields that are parameters, in the order of the constructor."""
        return [field for field in fields(cls) if field.init]

    def params(self) -> dict[str, Any]:
        """The full configuration besides the name, JSON-able; kept with results."""
        return {field.name: getattr(self, field.name) for field in self.parameters()}

    def notes(self) -> Sequence[str]:
        """What users of a run should know about the method, a line each."""
        return ()

    def allowance(self, prompt: int, tokens: int, L: int) -> int | None:
        """The most entries that a row may hold, or that a selector may read in a step, by the method's own rule.

        Args:
            prompt: P, number of prompt tokens.
            tokens: Number of generated tokens.
            L: The most new tokens.

        Returns:
            Entries, or None if the rule names no number.
        """
        return None

    def check_lengths(self, prompt: int, L: int) -> None:  # noqa: B027  # optional
        """Refuse chains for which the parameters make no sense, before any is generated.

        Args:
            prompt: P, number of prompt tokens.
            L: The most new tokens.

        Raises:
            MethodError: They do not; the message says which would.
        """

    def rope_rule(self, config: Any) -> str:
        """What of the rule goes by RoPE in every layer, as `hyperscale.methods.core.rotary.require_rope` names it.

        A run asks it before it starts, of checkpoints whose weights are not loaded.

        Args:
            config: The transformers configuration of a checkpoint.

        Returns:
            The name; "" if nothing does.
        """
        return ""

    def prompt_queries(self, prompt: int) -> int:
        """How many of a prompt's last queries `State.prune_prompt` looks at; the others may be anything.

        Args:
            prompt: P, number of prompt tokens.
        """
        return 0

    def start(self, host: HostModel) -> State:
        """State for one run on a model.

        Raises:
            MethodError: The method cannot run on this model.
        """
        return self.state(self, host)
