"""The entry point as a user calls it."""

import sys

import pytest

from hyperscale import cli


def caller(monkeypatch, capsys, folder):
    """A function that calls the entry point in a folder and gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["hyperscale", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return call
