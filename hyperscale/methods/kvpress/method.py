"""Methods named ``kvpress:NAME``: presses of the installed kvpress, which run in an engine of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from hyperscale.errors import MethodError, first_line
from hyperscale.methods.core.base import HostModel, Method, State
from hyperscale.methods.kvpress import press_tree
from hyperscale.methods.kvpress.press_tree import Node
from hyperscale.methods.names import KVPRESS

INTERVAL = 16
"""Decode steps between two evictions unless params say otherwise; kvpress's 512 is longer than many chains."""


@dataclass
class KVPress(Method):
    """A press that works while decoding, at a nominal CR.

    With P prompt tokens and at most L new ones, the CR sets
      DecodingPress and its kin: target_size = max(1, ceil((P + L) / CR) - compression_interval). It evicts to that
        size every compression_interval steps, so that a step attends to at most ceil((P + L) / CR) entries, but
        before it first evicts to P + compression_interval;
      CompressionRatioDecodingPress: target_compression_ratio = 1 - 1 / CR, of all tokens so far;
      what works on the prompt in a PrefillDecodingPress: compression_ratio = 1 - 1 / CR;
      DMSPress: nothing; entries go by their scores, and the CR is only a label.
    A ``budget`` in tokens stands for ceil((P + L) / CR) in the first of these; the others have none.
    Everything else that the presses are made with is a parameter, and goes to each press that has it. A value may be a
    mapping from CRs to values.

    Attributes:
        press: Names of the presses, as after ``kvpress:``.
        settings: The parameters, which kvpress knows and this class does not, by name.
        budget: The most entries of a row, in tokens, instead of by the CR.
    """

    name = "kvpress"
    summary = "a press of the installed kvpress that works while decoding"
    source = "github.com/NVIDIA/kvpress"

    press: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    budget: int | None = None

    def __post_init__(self) -> None:
        """Check name and parameters against the installed kvpress.

        Raises:
            MethodError: kvpress is missing, has no such press or parameter, or does not accept a value.
        """
        super().__post_init__()
        self._root = press_tree.parse(self.press)
        self._params = {name: self._at_ratio(name, value) for name, value in self.settings.items()}
        nodes = list(self._root.walk())
        settings = dict.fromkeys(name for node in nodes for name in node.settings())
        for name in self._params:
            if name in press_tree.BY_RATIO:
                raise MethodError(f"{self} has no parameter {name!r}: it follows from the compression ratio (--cr)")
            if name not in settings:
                raise MethodError(f"{self} has no parameter {name!r}; it has: {', '.join(settings) or 'none'}")
        if "threshold" in settings and self._params.get("threshold") is None:
            raise MethodError(
                f"{self} evicts what scores below a threshold: write params: {{'{self}': {{threshold: …}}}} in a file "
                "for --config"
            )
        if any(node.has("compression_interval") for node in nodes):
            self._params.setdefault("compression_interval", INTERVAL)
        if self.budget is not None and not any(node.has("target_size") for node in nodes):
            raise MethodError(f"{self} has no budget in tokens: set its compression ratio (--cr)")
        if self.budget is not None:
            self.check_lengths(1, 1)
        self.make_press(1, 1)  # refuses values here that kvpress would refuse in the middle of a run

    def __str__(self) -> str:
        return KVPRESS + self.press

    @property
    def length_invariant(self) -> bool:
        """See `Method.length_invariant`; a size that follows from L is not."""
        return self.budget is not None or not any(node.has("target_size") for node in self._root.walk())

    def params(self) -> dict[str, Any]:
        """See `Method.params`; what is not named has the default of kvpress, whose version is kept with the run."""
        budget = {} if self.budget is None else {"budget": self.budget}
        return {"cr": self.cr, **budget, **self._params}

    def notes(self) -> Sequence[str]:
        """See `Method.notes`."""
        notes = []
        if press_tree.masks(self._root):
            notes.append(
                f"{self} masks entries and frees none: peak_kv counts them all, kv_reads those that are attended to"
            )
        if self._root.has("threshold"):
            notes.append(
                f"{self} evicts by a threshold: its nominal compression ratio is only a label, the realised one counts"
            )
        return notes

    @property
    def _compresses(self) -> bool:
        return self.budget is not None or self.cr > 1

    def _budget(self, prompt: int, L: int) -> int:
        return self.budget or ceil((prompt + L) / self.cr)

    def check_lengths(self, prompt: int, L: int) -> None:
        """See `Method.check_lengths`: a row must not be evicted more of between two steps than it may hold."""
        budget = self._budget(prompt, L)
        if not self._compresses or not any(node.has("target_size") for node in self._root.walk()):
            return
        interval = int(self._params["compression_interval"])
        if interval >= budget:
            raise MethodError(
                f"{self} evicts every {interval} steps, and a row may hold {budget} entries (prompt of {prompt} "
                f"tokens, L = {L:,}): its cache would collapse. Set --method-param {self}.compression_interval below "
                f"{budget}, or compress less"
            )

    def make_press(self, prompt: int, L: int) -> Any:
        """A fresh press for one chain.

        Args:
            prompt: P.
            L: The most new tokens.

        Raises:
            MethodError: kvpress does not accept a value.
        """
        budget = self._budget(prompt, L)

        def arguments(node: Node) -> dict[str, Any]:
            values = {name: value for name, value in self._params.items() if node.has(name)}
            if node.has("target_size"):
                # A row grows by an interval before it is pruned again, and must stay within the budget then.
                interval = int(values["compression_interval"]) if self._compresses else 0
                values["target_size"] = max(1, budget - interval)
            if node.has("target_compression_ratio"):
                values["target_compression_ratio"] = 1 - 1 / self.cr
            if node.has(press_tree.DECODING):
                values[press_tree.DECODING] = True
            return values

        try:
            press = self._root.build(arguments)
            if hasattr(press, "prefilling_press"):
                press.prefilling_press.compression_ratio = 1 - 1 / self.cr
        except (AssertionError, AttributeError, TypeError, ValueError) as error:
            raise MethodError(
                f"kvpress refuses {self} with {self._params or 'no parameters'}: {first_line(error)}"
            ) from None
        return press

    def start(self, host: HostModel) -> State:
        """Presses work through hooks on transformers' attention, not in the slots of our cache."""
        raise MethodError(f"{self} runs by `hyperscale run` only")

    def _at_ratio(self, name: str, value: Any) -> Any:
        """A parameter's value at this CR, where the user gave one for each."""
        if not isinstance(value, Mapping):
            return value
        by_ratio = {float(ratio): choice for ratio, choice in value.items()}
        if self.cr not in by_ratio:
            ratios = ", ".join(f"{ratio:g}" for ratio in by_ratio)
            raise MethodError(f"{self} has {name} for CR {ratios or 'none'}, not for {self.cr:g}")
        return by_ratio[self.cr]


class Masking(KVPress):
    """A press that masks entries and evicts none."""

    kind = "selector"


def create(press: str, cr: float, params: Mapping[str, Any]) -> KVPress:
    """The method of a press, of the kind that it is.

    Raises:
        MethodError: See `KVPress`.
    """
    settings = {name: value for name, value in params.items() if name != "budget"}
    budget = params.get("budget")
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or budget < 1):
        raise MethodError(f"budget of {KVPRESS}{press} must be a whole number of tokens from 1 on, not {budget!r}")
    return (Masking if press_tree.masks(press_tree.parse(press)) else KVPress)(cr, press, settings, budget)
