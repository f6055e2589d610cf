"""Functions that users name: what runs is what their file says now."""

import os
import sys

from hyperscale.errors import TaskError
from hyperscale.utils.user_functions import load_function


def test_a_change_within_a_second_runs(tmp_path, monkeypatch):
    """As long a text, of the same second: Python's own loader would take the code that it compiled before."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "helpers.py"
    for value in (1, 2):
        file.write_text(f"def value():\n    return {value}\n")
        os.utime(file, (1_700_000_000, 1_700_000_000))
        assert load_function("helpers:value", tmp_path, TaskError)() == value
