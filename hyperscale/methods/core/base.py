"""The contract of a KV-compression method.

A `Method` is configuration: cheap, immutable, made anew for every run. `Method.start` gives the `State` that one batch
of chains carries along; its tensors are dense in the chain dimension and the engine moves them when chains come and go.

An evictor rules through up to four things, each optional but the second:

- prefill: each (token, head) gets an *expiry*, the first query position that no longer sees it (`State.expiry`), or
  the prompt is prefilled densely and cut afterwards (`State.cut_prompt`);
- decode: each (chain, head) names the *slot* its new entry is written to (`State.slots`): the row's length to append,
  or a live entry's slot to evict that entry. So in a step a row grows by one entry or by none;
- between steps whole chains may be cut to fewer entries (`State.chains_to_prune`, `State.prune`);
- `State.observe` shows it the attention weights of each step, if the method asks for them.

A merger also changes the entry that is written (`State.merge`, or before RoPE `State.rotate`). A selector names the
entries that are read in a step (`State.select`) and evicts nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hyperscale.errors import MethodError
from hyperscale.kv.cache import RowEntries
from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.methods.core.prefill_view import PrefillView
from hyperscale.methods.core.rotary import Projected


@dataclass(frozen=True)
class Host:
    """The model a method is started on.

    Attributes:
        attentions: The attention module of each layer.
        config: The model's transformers configuration.
        kv_heads: KV heads of a layer.
        slots: The most chains in flight at once.
        device: Where state tensors live.
        rotary: The model's rotary embedding, of one frequency per two entries of a head's dimension.
    """

    attentions: Sequence[nn.Module]
    config: Any
    kv_heads: int
    slots: int
    device: torch.device
    rotary: nn.Module | None = None

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.attentions)


@dataclass(frozen=True)
class Entrant:
    """One chain that enters the batch.

    Attributes:
        key: Noise key of (seed, problem, chain).
        max_new_tokens: L.
    """

    key: int
    max_new_tokens: int


@dataclass(frozen=True)
class DecodeStep:
    """One decode step, before anything is written.

    Attributes:
        positions: (chains,) int64, position q of the token being processed.
        lens: (layers, chains, kv_heads) int64, live entries of each row; not to be changed.
    """

    positions: Tensor
    lens: Tensor


@dataclass(frozen=True)
class Token:
    """The token that one layer processes in a decode step, of every chain.

    Attributes:
        hidden: (chains or more, 1, hidden), the layer's input, before its norm; rows past the chains are padding that
            keeps the arithmetic independent of the batch, and are to be dropped from what is computed of them.
        queries: (chains, query_heads, head_dim), after RoPE.
        keys: (chains, kv_heads, head_dim), after RoPE.
        values: (chains, kv_heads, head_dim).
        scale: Factor on the scores.
        width: The most slots that a row of the layer has room for.
    """

    hidden: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor
    scale: float
    width: int


class State(ABC):
    """What a method keeps for the chains in flight.

    Attributes:
        tensors: All per-chain tensors, each (any, slots, …): the engine moves them along dimension 1.
        rotates: Whether RoPE is left to `rotate`.
    """

    tensors: Sequence[Tensor] = ()
    rotates: bool = False

    def rotate(self, layer: int, projected: Projected) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as attention shall see them, RoPE applied; the first hook of a layer.

        Called in prefill and in decode, and only if the state ``rotates``.
        """
        return projected.rope(projected.queries), projected.rope(projected.keys), projected.values

    def expiry(self, layer: int, hidden: Tensor) -> Tensor | None:
        """Prefill verdicts of one layer.

        Args:
            layer: Layer index.
            hidden: (1, P, hidden), the layer's input, before its norm.

        Returns:
            (kv_heads, P) int64: key k is visible to query q iff k <= q < expiry; None if nothing expires.
        """
        return None

    def cut_prompt(self, layer: int, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        """What of a densely prefilled prompt stays, one layer at a time, so that no more than one layer is held whole.

        Returns:
            (kv_heads, P) bool, or None to keep everything; and (kv_heads, P) float32 by position, or None, which
            `admit` gets back as ``prompt.scores``.
        """
        return None, None

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: PrefilledPrompt) -> None:  # noqa: B027  # optional
        """Set the state of chains ``first``, ``first + 1``, … that start from ``prompt``, the one prefilled last."""

    def begin(self, step: DecodeStep) -> None:  # noqa: B027  # optional
        """Called once before each decode step."""

    @abstractmethod
    def slots(self, layer: int, token: Token) -> Tensor:
        """Where each row of a layer writes its new entry in this step.

        Returns:
            (chains, kv_heads) int64.
        """

    def merge(self, layer: int, token: Token) -> tuple[Tensor, Tensor]:
        """Key and value that are written, after `slots`: each (chains, kv_heads, head_dim)."""
        return token.keys, token.values

    def select(self, layer: int, token: Token) -> Tensor | None:
        """What is read in this step, after `merge`.

        Returns:
            (chains, kv_heads, group, token.width) bool by slot, slots without an entry being ignored; None for all.
        """
        return None

    def observe(self, layer: int, weights: Tensor) -> None:  # noqa: B027  # optional
        """Attention of the step, if the method ``needs_attention``.

        Args:
            layer: Layer index.
            weights: (chains, kv_heads, group, width) float32 by slot, 0 where there is no entry.
        """

    def chains_to_prune(self, step: DecodeStep) -> Tensor | None:
        """Which chains are to be pruned before the step that comes next.

        Returns:
            (chains,) bool on the device, or None if this method never prunes.
        """
        return None

    def prune(self, layer: int, chains: Tensor, rows: RowEntries) -> Tensor:
        """What stays of some chains to prune.

        A state with tables by slot must reorder them as the cache does: by `hyperscale.kv.prefilled.live_first_order`.

        Args:
            layer: Layer index.
            chains: (some,) int64, their numbers.
            rows: Their entries.

        Returns:
            (some, kv_heads, slots) bool, False where nothing lives.
        """
        raise AssertionError("a state that is due must prune")


class Method(ABC):
    """A KV-compression method with its parameters.

    Attributes:
        name: The name it is registered under.
        summary: One line for listings.
        source: Paper, equation, reference code.
        kind: "evictor": memory and reads fall; "selector": only reads fall; "merger": entries are combined.
        needs_attention: Whether the rule looks at attention weights.
        checkpoint: Kind of retrofit that the model must be: "dms", "dmc"; None if any model will do.
        length_invariant: Whether the rule is independent of the maximum length, so that a long chain's beginning is the
            same as a shorter chain and may stand for it.
        cr: Nominal compression ratio.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    kind: ClassVar[Literal["evictor", "selector", "merger"]] = "evictor"
    needs_attention: ClassVar[bool] = False
    checkpoint: ClassVar[str | None] = None

    def __init__(self, cr: float = 1.0) -> None:
        if not cr >= 1:
            raise MethodError(f"the compression ratio of {self.name} must be at least 1, not {cr}")
        self.cr = float(cr)

    @property
    def length_invariant(self) -> bool:
        """See the class; may depend on parameters."""
        return True

    def params(self) -> dict[str, Any]:
        """The full configuration besides the name, JSON-able; kept with results."""
        return {"cr": self.cr}

    def notes(self) -> Sequence[str]:
        """What a run has to say of the method, a line each."""
        return ()

    def allowance(self, prompt: int, tokens: int, max_new_tokens: int) -> int | None:
        """The most entries that a row may hold, or that a selector may read in a step, by the method's own rule.

        Args:
            prompt: P, number of prompt tokens.
            tokens: Number of generated tokens.
            max_new_tokens: L.

        Returns:
            Entries, or None if the rule names no number.
        """
        return None

    @abstractmethod
    def start(self, host: Host) -> State:
        """State for one run on a model.

        Raises:
            MethodError: The method cannot run on this model.
        """
