"""The contract of a KV-compression method.

A `Method` is configuration: cheap, immutable, made anew for every run. `Method.start` gives the `State` that one batch
of chains carries along; its tensors are dense in the chain dimension and the engine moves them when chains come and go.

An evictor rules through two things. During prefill, each (token, head) gets an *expiry*: the first query position that
no longer sees it. During decode, each (chain, head) names the *slot* its new entry is written to: the row's length to
append, or a live entry's slot to evict that entry. So every row grows by one entry or by none.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hyperscale.errors import MethodError
from hyperscale.kv.prompt import Prompt


@dataclass(frozen=True)
class Host:
    """The model a method is started on.

    Attributes:
        attentions: The attention module of each layer.
        config: The model's transformers configuration.
        kv_heads: KV heads of a layer.
        slots: The most chains in flight at once.
        device: Where state tensors live.
    """

    attentions: Sequence[nn.Module]
    config: Any
    kv_heads: int
    slots: int
    device: torch.device

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
class Step:
    """One decode step, before anything is written.

    Attributes:
        positions: (chains,) int64, position q of the token being processed.
        lens: (layers, chains, kv_heads) int64, live entries of each row; not to be changed.
    """

    positions: Tensor
    lens: Tensor


class State(ABC):
    """What a method keeps for the chains in flight.

    Attributes:
        tensors: All per-chain tensors, each (any, slots, …): the engine moves them along dimension 1.
    """

    tensors: Sequence[Tensor] = ()

    def expiry(self, layer: int, hidden: Tensor) -> Tensor | None:
        """Prefill verdicts of one layer.

        Args:
            layer: Layer index.
            hidden: (1, P, hidden), the layer's input, before its norm.

        Returns:
            (kv_heads, P) int64: key k is visible to query q iff k <= q < expiry; None if nothing expires.
        """
        return None

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: Prompt) -> None:  # noqa: B027  # optional
        """Set the state of chains ``first``, ``first + 1``, … that start from ``prompt``."""

    def begin(self, step: Step) -> None:  # noqa: B027  # optional
        """Called once before each decode step."""

    @abstractmethod
    def slots(self, layer: int, hidden: Tensor) -> Tensor:
        """Where each row of a layer writes its new entry in this step.

        Args:
            layer: Layer index.
            hidden: (chains or more, 1, hidden), the layer's input; rows past the chains are padding that keeps the
                arithmetic independent of the batch, and are to be dropped from what is computed of them.

        Returns:
            (chains, kv_heads) int64.
        """


class Method(ABC):
    """A KV-compression method with its parameters.

    Attributes:
        name: The name it is registered under.
        summary: One line for listings.
        source: Paper, equation, reference code.
        kind: "evictor": memory and reads fall; "selector": only reads fall; "merger": entries are combined.
        needs_attention: Whether the rule looks at attention weights.
        needs_gates: Whether the model must carry trained DMS gates.
        length_invariant: Whether the rule is independent of the maximum length, so that a long chain's beginning is the
            same as a shorter chain and may stand for it.
        alone: Whether its chains decode one at a time, whatever the batch size.
        packages: Optional packages that it runs on; their versions are kept with a run.
        cr: Nominal compression ratio.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    kind: ClassVar[Literal["evictor", "selector", "merger"]] = "evictor"
    needs_attention: ClassVar[bool] = False
    needs_gates: ClassVar[bool] = False
    alone: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ()

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

    @abstractmethod
    def start(self, host: Host) -> State:
        """State for one run on a model.

        Raises:
            MethodError: The method cannot run on this model.
        """
