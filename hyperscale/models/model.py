"""Defines what is known of a model before any weights are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hyperscale.models.shape import Shape

RETROFIT_KINDS = ("dms", "dmc")
"""Kinds of retrofits; a folder of one is named by kind and CR."""


@dataclass(frozen=True)
class Model:
    """A model: its checkpoints and its defaults.

    Attributes:
        name: The name, folder or hub id that it was named by.
        base: Checkpoint that methods without a retrofit run: a folder or a hub id.
        retrofits: Kind to CR to checkpoint; kinds without any are left out.
        family: transformers model type, or "" if only the checkpoint says.
        note: One line.
        temperature: Default softmax temperature.
        top_p: Default nucleus mass.
        top_k: Default number of tokens kept; 0 keeps all.
        min_p: Default least probability, as a part of the most probable token's.
        repetition_penalty: Default penalty on tokens that are there already; 1 is none.
        sampling_source: Where these five are from, in words for the user; empty if nothing states them, so that the
            checkpoint's own file may (`hyperscale.models.default_sampling`).
        tasks: Default tasks.
        grid: Default grid of candidates.
        batch_size: Default number of chains that decode together.
        demonstrate: Whether it is small enough for single chains to be shown before the run.
        base_length: L of the base point, in tokens, on tasks that have it; the task's if 0.
        chat: What is special about its chat template.
        thinking: Opening and closing of its thinking, if `hyperscale.models.thinking` lacks these marks.
        gated: Whether the terms of ``base`` must be accepted before it can be downloaded.
        context: Most tokens of a sequence, for plans made without the weights; unknown if 0.
        shape: Layers, KV heads, head dimension and parameters, for plans made without the weights.
    """

    name: str
    base: str
    retrofits: Mapping[str, dict[float, str]] = field(default_factory=dict)
    family: str = ""
    note: str = ""
    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    sampling_source: str = ""
    tasks: tuple[str, ...] = ()
    grid: str = "paper"
    batch_size: int = 64
    demonstrate: bool = False
    base_length: int = 0
    chat: str = ""
    thinking: tuple[str, str] | None = None
    gated: bool = False
    context: int = 0
    shape: Shape | None = None

    @property
    def dms(self) -> dict[float, str]:
        """CR to the checkpoint retrofitted with DMS."""
        return self.retrofits.get("dms", {})
