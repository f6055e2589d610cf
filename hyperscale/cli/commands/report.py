"""``hyperscale report``: writes results as one HTML file."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from hyperscale.cli.arguments import check_output
from hyperscale.cli.display.console import make_console, print_notes
from hyperscale.errors import ConfigError
from hyperscale.utils.printing import print_line


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of several runs.")] = Path("results"),
    out: Annotated[Path | None, typer.Option(help="The HTML file. [report.html in the folder]")] = None,
    text_mib: Annotated[
        float, typer.Option("--text-mib", min=0, max=4096, help="Room for the chains' texts in the file, in MiB.")
    ] = 16,
    one_file: Annotated[
        bool, typer.Option("--one-file", help="Shorten texts that need more, and write no folder of texts beside it.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show it to browsers on this machine until Ctrl-C, as over a tunnel of ssh.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="With --serve: the port; 0 for a free one. [8000]")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="With --serve: the address; another than this machine's own lets others read. [127.0.0.1]"),
    ] = None,
) -> None:
    """Write one HTML file, to be opened offline: frontiers, margins, points, and every chain with its text."""
    check_output("--out", out)
    if not serve and (port is not None or host is not None):
        raise ConfigError("--port and --host go with --serve")
    from hyperscale import report as reports

    console = make_console()
    with ExitStack() as stack:
        server = None
        if serve:
            from hyperscale.report.html.serve import HOST, PORT, ReportServer

            # Before the work: a port in use is said at once. Whoever asks meanwhile waits.
            server = stack.enter_context(ReportServer(folder, host or HOST, PORT if port is None else port))
        path = reports.write_report(
            folder,
            out,
            text_mib,
            lambda step: console.print(f"{step} …", style="dim", highlight=False),
            lambda note: print_notes(console, [note]),
            one_file,
        )
        print_line(console, f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)")
        if server is not None:
            server.page = path
            print_line(console, f"serving it at {server.url} until Ctrl-C")
            if not server.is_local:
                print_notes(console, ["everyone who reaches this address can read the report, chains included"])
            server.serve_forever()
