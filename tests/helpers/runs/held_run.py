"""A command line for `python -c` whose run a test can hold, so that it is in the middle when something befalls it."""

from pathlib import Path

HELD = """
import sys, time
from pathlib import Path
from hyperscale.cli import main
from hyperscale.results.store import Store

append = Store.append

def append_and_wait(self, sample):
    append(self, sample)
    most = Path(f"{self.folder}.most")
    while most.exists() and (text := most.read_text()) and len(self._keys) >= int(text):
        time.sleep(0.01)

Store.append = append_and_wait
main.main()
"""
"""Its arguments are the command's."""


def hold_at(folder, chains):
    """Let a run's folder have so many chains, and no more until there is another number."""
    Path(f"{folder}.most").write_text(str(chains))


def let_go(folder):
    """Hold the run no longer."""
    Path(f"{folder}.most").unlink()
