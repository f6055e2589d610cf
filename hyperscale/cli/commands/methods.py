"""``hyperscale methods``: lists the methods, or shows one with its rule and parameters."""

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
        _print_table([registry.describe(method) for method in registry.available()])
    else:
        _print_method(registry.describe(name))


def _print_table(methods: "list[Description]") -> None:
    from rich.text import Text

    from hyperscale.cli.display.table_format import NOTHING, make_table

    table = make_table(None, ("method", "kind", "needs", "one pass"))
    table.add_column("rule, parameters with their defaults, source")
    for method in methods:
        about = Text(method.summary)
        about.append(f"\n{_format_params(method)}", style="cyan")
        about.append(f"\n{method.source}", style="dim")
        table.add_row(method.name, method.kind, ", ".join(method.needs) or NOTHING, _one_pass(method), about)
    console = make_console()
    console.width = min(console.width, _WIDTH)
    console.print(table)
    console.print(
        "one pass: a chain serves every shorter L, as the rule does not depend on L; else a run generates each L by "
        "itself. Set parameters with --method-param NAME.KEY=VALUE and --pin-prompt; cr with --cr. "
        "A budget in tokens, like tova.budget=1024, takes the place of the CR for a method that has a rule. "
        "`hyperscale methods NAME` shows a rule.\n"
        "Or kvpress:NAME, a press of an installed kvpress that works while decoding (docs/kvpress.md).",
        soft_wrap=False,
    )


def _print_method(method: "Description") -> None:
    typer.echo(f"{method.name}: {method.summary}\n\n{method.rule}\n")
    for word, text in (
        ("kind", method.kind),
        ("needs", ", ".join(method.needs) or "nothing"),
        ("one pass", f"{_one_pass(method)}, with the default parameters"),
        ("parameters", _format_params(method)),
        ("source", method.source),
    ):
        typer.echo(f"{word:<10}  {text}")


def _one_pass(method: "Description") -> str:
    return "yes" if method.length_invariant else "no"


def _format_params(method: "Description") -> str:
    return ", ".join(f"{key}={_format_value(value)}" for key, value in method.params.items())


def _format_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
