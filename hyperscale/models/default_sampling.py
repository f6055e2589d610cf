"""Tells how a model samples where a run does not say: as ``models.yaml`` has it, else as its own files do.

The file is ``generation_config.json``, which transformers and vLLM read for the same purpose. If it states any of the
values, it stands for all of them, and those that it leaves out are neutral, as there. As in vLLM, ``do_sample`` is not
read: whether chains are drawn or greedy follows from the temperature.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from hyperscale.errors import ModelError, first_line
from hyperscale.models.model import Model
from hyperscale.utils.hub import available_file
from hyperscale.utils.validation import validate

FILE = "generation_config.json"
NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Values that change nothing of the model's own distribution."""

_STATED = FILE
_LEFT_OUT = f"left out by {FILE}"
_NOWHERE = "hyperscale's default"


@dataclass(frozen=True)
class DefaultSampling:
    """How a model samples by default.

    Attributes:
        values: Value by name, of each of `NEUTRAL`.
        sources: Where each is from, in words for the user.
    """

    values: Mapping[str, float]
    sources: Mapping[str, str]


class _GenerationConfig(BaseModel):
    """What of a ``generation_config.json`` is read here; the ids that end a sequence are read with the weights."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    temperature: float | None = Field(None, ge=0, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, allow_inf_nan=False)


def find_default_sampling(model: Model) -> DefaultSampling:
    """How a model samples by default; downloads the small file of a model of the hub if it is not here.

    Raises:
        ModelError: The model's file cannot be read, or has a value without a meaning.
    """
    own = {name: getattr(model, name) for name in NEUTRAL}
    if model.sampling_source:
        return DefaultSampling(own, dict.fromkeys(NEUTRAL, model.sampling_source))
    folder = Path(model.base)
    path = folder / FILE if folder.is_absolute() else available_file(model.base, FILE)
    stated = _read(path) if path is not None and path.is_file() else {}
    if not stated:
        return DefaultSampling(own, dict.fromkeys(NEUTRAL, _NOWHERE))
    sources = {name: _STATED if name in stated else _LEFT_OUT for name in NEUTRAL}
    return DefaultSampling({**NEUTRAL, **stated}, sources)


def _read(path: Path) -> dict[str, float]:
    """The values that a file states."""
    remedy = "mend the file"
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path} ({first_line(error)}): {remedy}") from None
    config = validate(_GenerationConfig, contents, ModelError, str(path), remedy)
    stated = config.model_dump(exclude_none=True)
    if stated.get("top_k") == -1:  # another way of writing it
        stated["top_k"] = 0
    return stated
