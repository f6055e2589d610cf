"""Tells how a model samples where a run does not say: as ``models.yaml`` has it, else as its own files do.

The file is ``generation_config.json``, which transformers and vLLM read for the same purpose. If it states any of the
values, it stands for all of them, and those that it leaves out are neutral, as there. As in vLLM, ``do_sample`` is not
read: whether chains are drawn or greedy follows from the temperature.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hyperscale.errors import ModelError, first_line
from hyperscale.models.model import Model
from hyperscale.utils.hub import available_file
from hyperscale.utils.validation import validate

FILE = "generation_config.json"
NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Values that change nothing of the model's own distribution."""

_IGNORED: dict[str, tuple[Any, ...]] = {
    "typical_p": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "top_h": (),
    "num_beams": (1,),
    "guidance_scale": (1,),
    "penalty_alpha": (0,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "bad_words_ids": (),
    "suppress_tokens": (),
    "begin_suppress_tokens": (),
    "sequence_bias": (),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "exponential_decay_length_penalty": (),
    "dola_layers": (),
    "watermarking_config": (),
    "stop_strings": (),
}
"""Settings that shape the draws or end them and are not applied, each with the values that change nothing."""

_STATED = FILE
_LEFT_OUT = f"left out by {FILE}"
_NOWHERE = "hyperscale's default"
_SHOWN = 40  # characters of a value


@dataclass(frozen=True)
class DefaultSampling:
    """How a model samples by default.

    Attributes:
        values: Value by name, of each of `NEUTRAL`.
        sources: Where each is from, in words for the user.
        ignored: What the model's file asks for and no engine here applies, each as "name = value".
    """

    values: Mapping[str, float]
    sources: Mapping[str, str]
    ignored: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What users should know, a line each."""
        if not self.ignored:
            return []
        return [f"{FILE} asks for {', '.join(self.ignored)}, which hyperscale does not apply"]


class _GenerationConfig(BaseModel):
    """What of a ``generation_config.json`` is read here; the ids that end a sequence are only checked."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    temperature: float | None = Field(None, ge=0, allow_inf_nan=False, strict=True)
    top_p: float | None = Field(None, gt=0, le=1, strict=True)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1, strict=True)
    repetition_penalty: float | None = Field(None, gt=0, allow_inf_nan=False, strict=True)
    eos_token_id: Any = None  # no union: pydantic would name its branches to the user

    @field_validator("eos_token_id")
    @classmethod
    def _check_ends(cls, value: Any) -> Any:
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if any(type(token) is not int for token in ids):  # nor bool
            raise ValueError("must be a whole number or a list of such")
        return value


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
    stated, ignored = _read(path) if path is not None and path.is_file() else ({}, ())
    if not stated:
        return DefaultSampling(own, dict.fromkeys(NEUTRAL, _NOWHERE), ignored)
    sources = {name: _STATED if name in stated else _LEFT_OUT for name in NEUTRAL}
    return DefaultSampling({**NEUTRAL, **stated}, sources, ignored)


def _read(path: Path) -> tuple[dict[str, float], tuple[str, ...]]:
    """The values that a file states, and what it asks for beside them that is not applied."""
    remedy = "mend the file"
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path} ({first_line(error)}): {remedy}") from None
    config = validate(_GenerationConfig, contents, ModelError, str(path), remedy)
    stated = config.model_dump(exclude_none=True, exclude={"eos_token_id"})
    if stated.get("top_k") == -1:  # another way of writing it
        stated["top_k"] = 0
    asked = [name for name, neutral in _IGNORED.items() if contents.get(name) not in (None, [], {}, *neutral)]
    return stated, tuple(f"{name} = {json.dumps(contents[name])[:_SHOWN]}" for name in asked)
