"""Reads ``models.yaml``, the models that are known by name, and checks it."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from hyperscale.errors import ModelError
from hyperscale.models.model import RETROFIT_KINDS, Model
from hyperscale.models.shape import Shape
from hyperscale.utils.validation import Location, validate
from hyperscale.utils.yaml_files import read_yaml

_FILE = Path(__file__).resolve().parent / "models.yaml"
_PACKAGE = Path(__file__).resolve().parent.parent
_Mark = Annotated[str, Field(min_length=1)]


class _ShapeEntry(BaseModel):
    """``shape`` of an entry."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    parameters: int | None = Field(None, ge=1)
    heads: int | None = Field(None, ge=1)
    embedding: int = Field(0, ge=0)


_SAMPLING = {"temperature", "top_p", "top_k", "min_p", "repetition_penalty"}


class _ModelEntry(BaseModel):
    """An entry of the file; `Model` says what its keys mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field(min_length=1)
    dms: dict[float, str] = {}
    dmc: dict[float, str] = {}
    family: str = ""
    note: str = ""
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)
    tasks: tuple[str, ...] = ()
    grid: str = "paper"
    batch_size: int = Field(64, ge=1)
    demonstrate: bool = False
    base_length: int = Field(0, ge=0)
    chat: str = ""
    thinking: tuple[_Mark, _Mark] | None = None
    gated: bool = False
    context: int = Field(0, ge=0)
    shape: _ShapeEntry | None = None


@cache
def known_models() -> Mapping[str, Model]:
    """The models that this package knows, by name."""
    return read_models(_FILE)


def read_models(path: Path) -> dict[str, Model]:
    """Read the models of a file.

    Raises:
        ModelError: The file cannot be read, or an entry has an unknown key or a wrong value; the message names the
            file, the line, the model and the key.
    """
    file = read_yaml(path, ModelError, "write models like `name: {base: owner/name}`")
    models = {}
    for name, values in file.values.items():

        def place(location: Location, name: str = name) -> str:
            return f"{file.place((name, *location))}: model {name!r}"

        models[name] = _make_model(name, validate(_ModelEntry, values, ModelError, place))
    return models


def _make_model(name: str, entry: _ModelEntry) -> Model:
    fields = entry.model_dump(exclude={"base", "shape", *RETROFIT_KINDS})
    retrofits = {
        kind: {cr: _locate(path) for cr, path in paths.items()}
        for kind in RETROFIT_KINDS
        if (paths := getattr(entry, kind))
    }
    shape = None if entry.shape is None else Shape(**entry.shape.model_dump())
    # An entry that states nothing of its sampling leaves it to the model's own files.
    source = _FILE.name if entry.model_fields_set & _SAMPLING else ""
    return Model(
        name=name, base=_locate(entry.base), retrofits=retrofits, shape=shape, sampling_source=source, **fields
    )


def _locate(path: str) -> str:
    """The absolute path of weights that come with this package; hub ids stay as they are."""
    return str(_PACKAGE / path) if path.startswith("mini/") else path
