"""The entry point as a user calls it."""

import sys

import pytest

from hyperscale.cli import main
from hyperscale.tasks.own import sources


def caller(monkeypatch, capsys, folder):
    """A function that calls the entry point in a folder and gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)

    def call(*arguments):
        # A process of its own knows no tasks of the user's yet, and takes those that it learns with it.
        for registry in ("_SOURCES", "_GROUP_SOURCES"):
            monkeypatch.setattr(sources, registry, {})
        monkeypatch.setattr(sys, "argv", ["hyperscale", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main.main()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return call


def fails(result, *texts):
    """What a call gave is a user's error: exit code 2, one line that has these texts, no traceback."""
    code, _, err = result
    assert code == 2
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    for text in texts:
        assert text in err
