"""``hyperscale models``: lists the models known by name, shows one, or names one of the user's."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyperscale.cli.commands.lists import print_entries

if TYPE_CHECKING:
    from hyperscale.models.model import Model


def models(
    name: Annotated[
        str | None, typer.Argument(help="A model, to be shown with what runs of it have by default.")
    ] = None,
    add: Annotated[
        tuple[Path, str] | None,
        typer.Option(
            metavar="DIR NAME",
            help="Give a folder (a checkpoint, or what `hyperscale retrofit` made) a name for --model.",
        ),
    ] = None,
) -> None:
    """List the models known by name, show one, or name one of yours."""
    from hyperscale import models as registry
    from hyperscale.errors import ConfigError

    if add is not None:
        if name is not None:
            raise ConfigError(f"--add names a model, and {name!r} asks for one to be shown: leave one of them out")
        typer.echo(registry.add_user_model(*add))
    elif name is not None:
        print_entries(dict(_describe(registry.find(name))))
    else:
        print_entries(registry.available())


def _describe(model: "Model") -> Iterator[tuple[str, str]]:
    """What is known of a model without its weights, each with the name of it."""
    from hyperscale import models as registry

    yield "model", model.name + (f": {model.note}" if model.note else "")
    yield "base", model.base + (" (its terms must be accepted first)" if model.gated else "")
    for kind, paths in model.retrofits.items():
        for cr, path in paths.items():
            yield f"{kind} {cr:g}×", path
    if not model.retrofits:
        yield "dms", "no checkpoint yet: make one with `hyperscale retrofit`"
    if model.chat:
        yield "template", model.chat
    if model.tasks:
        yield "tasks", ", ".join(model.tasks)
    yield "grid", model.grid
    yield "batch size", str(model.batch_size)
    sampling = registry.find_default_sampling(model)
    for key, value in sampling.values.items():
        yield key, f"{value:g} ({sampling.sources[key]})"
    if model.context:
        yield "context", f"{model.context:,} tokens"
    shape = model.shape
    if shape is None and Path(model.base).is_dir():
        shape = registry.shape_of(model.name, model.base)
    if shape is not None:
        size = "" if shape.parameters is None else f"{shape.parameters:,} weights; "
        yield "shape", f"{size}{shape.layers} layers, {shape.kv_heads} KV heads of {shape.head_dim}"
