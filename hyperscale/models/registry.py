"""Looks models up: a name (the package's or the user's), a local folder, or a hub id with or without a revision."""

import re
from pathlib import Path

from hyperscale.errors import ConfigError, ModelError
from hyperscale.models.folders import model_in_folder, model_of_checkpoint
from hyperscale.models.gate_files import read_available_config
from hyperscale.models.model import Model
from hyperscale.models.model_file import known_models
from hyperscale.models.user_models import find_user_model, user_model_names
from hyperscale.models.weight_files import explain_gguf
from hyperscale.utils.paths import expand_home

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w.-][\w./-]*)?")


def available() -> dict[str, str]:
    """Names of the known models, with a line each; those that the user has named come last."""
    own = {name: f"{model.note}; {_list_retrofits(model)}" for name, model in known_models().items()}
    return own | user_model_names()


def _list_retrofits(model: Model) -> str:
    offers = [f"{kind} at {', '.join(f'{cr:g}×' for cr in paths)}" for kind, paths in model.retrofits.items()]
    return "; ".join(offers) or "dms: no checkpoint yet, see `hyperscale retrofit`"


def is_built_in(model: str) -> bool:
    """Whether a name is that of a model whose weights come with this package."""
    return model in known_models() and Path(known_models()[model].base).is_absolute()


def find(model: str) -> Model:
    """Look a model up by name, folder or hub id.

    Raises:
        ModelError: It is none of these.
    """
    if model in known_models():
        return known_models()[model]
    if (named := find_user_model(model)) is not None:
        return named
    folder = expand_home(model)
    if folder.is_dir():
        return model_in_folder(model, folder.resolve())
    if folder.is_file():
        if folder.suffix.lower() == ".gguf":
            raise ModelError(explain_gguf(folder))
        raise ModelError(f"{model} is a file: pass the folder that it is in, which holds config.json and the weights")
    if _HUB_ID.fullmatch(model) and not model.startswith((".", "/", "~")):
        config = read_available_config(model)
        return Model(name=model, base=model) if config is None else model_of_checkpoint(model, model, config)
    names = ", ".join([*known_models(), *user_model_names()])
    raise ModelError(
        f"unknown model {model!r}: choose one of {names}, or pass a folder or a hub id, owner/name "
        "or owner/name@revision"
    )


def add_revision(model: str, revision: str | None) -> str:
    """A hub id with its revision, ``owner/name@revision``; the model as it is if no revision is asked for.

    Raises:
        ConfigError: The model has no revisions, or names another one already.
    """
    if revision is None:
        return model
    if model in available() or Path(model).expanduser().exists() or not _HUB_ID.fullmatch(model):
        raise ConfigError(f"--revision goes with a hub id owner/name, which {model!r} is not: leave it out")
    name, _, own = model.partition("@")
    if own not in ("", revision):
        raise ConfigError(f"--revision {revision} and --model {model} name two revisions: leave one of them out")
    if not _HUB_ID.fullmatch(f"{name}@{revision}"):
        raise ConfigError(f"--revision must be a branch, a tag or a commit, not {revision!r}")
    return f"{name}@{revision}"
