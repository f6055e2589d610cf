"""Mistakes in the options of ``run --json``, which are found before the run has begun."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "mistake", [("--template-arg", "x"), ("--cr", "a"), ("--method-param", "x"), ("--temperature", "x"), ("--nosuch",)]
)
def test_a_mistake_in_the_options_is_an_event_too(mistake):
    done = subprocess.run(
        [sys.executable, "-m", "hyperscale.cli", "run", *mistake, "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    event = json.loads(done.stdout)
    assert event["event"] == "failed"
    assert done.stderr == f"error: {event['message']}\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_events_that_cannot_be_written_leave_the_line_and_the_code():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hyperscale.cli", "run", "--nosuch", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
