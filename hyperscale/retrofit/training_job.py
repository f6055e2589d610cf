"""What one training of a retrofit needs, found and checked before anything is loaded."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hyperscale.retrofit.memory_estimate import MemoryEstimate
from hyperscale.retrofit.reporting.records import Activations, TrainingRecord
from hyperscale.retrofit.settings import Recipe, RetrofitSettings

if TYPE_CHECKING:
    from hyperscale.retrofit.sources.text_files import TextSource


@dataclass(frozen=True)
class TrainingJob:
    """A training that is ready to begin, or to go on.

    Attributes:
        settings: What to do; the recipe is chosen.
        base: Folder or hub id of the model.
        config: Its transformers configuration.
        device: Where: "cpu", "cuda" or "cuda:N".
        length: Tokens of a row.
        source: The texts.
        activations: What is held of a forward pass; chosen, where the settings leave it open.
        estimate: The memory that it was said to take, with the number of the model's weights.
        date: What chat templates take for the present: when the training began.
        begun: The record of the training that the folder holds; None if it holds none.
    """

    settings: RetrofitSettings
    base: str
    config: Any
    device: str
    length: int
    source: "TextSource"
    activations: Activations
    estimate: MemoryEstimate
    date: datetime
    begun: TrainingRecord | None = None

    @property
    def recipe(self) -> Recipe:
        """What the trainer reads."""
        return self.settings.recipe(self.estimate.parameters)

    @property
    def step_tokens(self) -> int:
        """Tokens of an optimiser step, padding included."""
        return self.settings.rows * self.settings.accumulate * self.length
