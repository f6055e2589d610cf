"""``hyperscale tasks``: lists the tasks, and tries those of the user's own before a run."""

from pathlib import Path
from typing import Annotated

import typer

from hyperscale.cli.commands.lists import print_entries


def tasks(
    include: Annotated[list[Path] | None, typer.Option(help="List the tasks of this folder, too.")] = None,
    check: Annotated[
        list[Path] | None, typer.Option(help="Say what is wrong with a task's file, or with those of a folder.")
    ] = None,
) -> None:
    """List the tasks, or check a task of your own.

    A check reads the file and its problems, shows the first problem as it will be asked, and tries the grader on a
    right and on a wrong answer. It ends with 2 if anything is wrong.
    """
    from hyperscale import tasks as registry
    from hyperscale.tasks.own import sources

    if not check:
        for folder in include or []:
            sources.declare_folder(folder)
        own = {name: registry.load(name).summary for name in sources.declared()}
        own |= {name: f"the tasks {', '.join(sources.expand_group(name))}" for name in sources.declared_groups()}
        print_entries(registry.available() | own)
        return
    from hyperscale.errors import TaskError
    from hyperscale.tasks.own_check import check_file, check_groups, files_of

    mistakes: list[str] = []
    for path in check:
        for number, file in enumerate(files_of(path)):
            if number:
                typer.echo()
            report = check_file(file)
            typer.echo(report.text)
            mistakes += report.mistakes
        if (groups := check_groups(path, mistakes)) is not None:
            typer.echo(f"\n{groups.text}")
            mistakes += groups.mistakes
    if mistakes:
        count = len(mistakes)
        raise TaskError(f"{count} mistake{'s' if count > 1 else ''}: mend what is marked wrong, and check again")
