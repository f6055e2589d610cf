"""The command line in a process of its own, whatever its streams, its environment and its limits are."""

import os
import subprocess
import sys

from repository import ROOT

PROGRAM = "from hyperscale.cli.main import main; main()"


def run_command(*arguments, folder=None, before="", after="", shell="sh", timeout=300, **environment):
    """Call ``hyperscale`` through a shell; gives (exit code, stdout, stderr).

    Args:
        arguments: Of the command.
        folder: Working directory.
        before: What the shell does first: ``ulimit -v 1000``.
        after: Redirections: ``>&-``.
        environment: Variables; None takes one away.
    """
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    script = f'{before}\n"$0" -c "$PROGRAM" "$@" {after}'
    done = subprocess.run(
        [shell, "-c", script, sys.executable, *arguments],
        cwd=folder,
        env={name: value for name, value in (variables | {"PROGRAM": PROGRAM}).items() if value is not None},
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def ends_in_a_line(result, *texts, start="error: "):
    """What a call gave is exit code 2 and one line on stderr that has these texts."""
    code, _, err = result
    assert code == 2, (code, err)
    assert err.startswith(start), err
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    for text in texts:
        assert text in err
