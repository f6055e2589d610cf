"""``hyperscale methods``: what a method is, needs and can be told."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperscale.cli.display.console import make_console

if TYPE_CHECKING:
    from hyperscale.methods.registry import Description

_WIDTH = 100


def methods(
    name: Annotated[str | None, typer.Argument(help="A method, to be shown whole with its rule.")] = None,
) -> None:
    """List the KV-compression methods, or show one."""
    from hyperscale import methods as registry

    if name is None:
        _table([registry.describe(each) for each in registry.available()])
    else:
        _whole(registry.describe(name))


def _table(found: "list[Description]") -> None:
    from rich.table import Table
    from rich.text import Text

    from hyperscale.cli.display import tables

    table = Table(**tables.STYLE)
    tables.columns(table, ("method", "kind", "needs", "one pass"), ())
    table.add_column("rule, parameters with their defaults, source")
    for each in found:
        about = Text(each.summary)
        about.append(f"\n{_params(each)}", style="cyan")
        about.append(f"\n{each.source}", style="dim")
        table.add_row(each.name, each.kind, ", ".join(each.needs) or "·", _pass(each), about)
    out = make_console()
    out.width = min(out.width, _WIDTH)
    out.print(table)
    out.print(
        "one pass: a chain serves every shorter L, as the rule does not depend on L; else a run generates each L by "
        "itself. Set parameters with --method-param NAME.KEY=VALUE and --pin-prompt; cr with --cr. "
        "`hyperscale methods NAME` shows a rule.\n"
        "Or kvpress:NAME, a press of an installed kvpress that works while decoding (docs/kvpress.md)."
    )


def _whole(method: "Description") -> None:
    typer.echo(f"{method.name}: {method.summary}\n\n{method.rule}\n")
    for word, text in (
        ("kind", method.kind),
        ("needs", ", ".join(method.needs) or "nothing"),
        ("one pass", f"{_pass(method)}, with the default parameters"),
        ("parameters", _params(method)),
        ("source", method.source),
    ):
        typer.echo(f"{word:<10}  {text}")


def _pass(method: "Description") -> str:
    return "yes" if method.length_invariant else "no"


def _params(method: "Description") -> str:
    return ", ".join(f"{key}={_plain(value)}" for key, value in method.params.items())


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
