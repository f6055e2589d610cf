"""``hyperscale models``, ``tasks`` and ``budgets``: lists with a line for each entry."""

import typer


def models() -> None:
    """List the models known by name."""
    from hyperscale import models as registry

    _list(registry.available())


def tasks() -> None:
    """List the tasks."""
    from hyperscale import tasks as registry

    _list(registry.available())


def budgets() -> None:
    """List the named grids and how budgets are written."""
    from hyperscale.planning import grid
    from hyperscale.planning.budget import EXAMPLES

    _list(grid.available())
    typer.echo(f"or a ceiling per problem, 8x being eight base points: {EXAMPLES}")


def _list(entries: dict[str, str]) -> None:
    width = max(map(len, entries), default=0)
    for name, line in entries.items():
        typer.echo(f"{name:<{width}}  {line}")
