"""Has the processes of one command say a line once, where all of them end for the same reason."""

import hashlib
import os
from pathlib import Path

from hyperscale.utils.files import create_first

FOLDER = "HYPERSCALE_SAID"
"""Environment variable: a folder in which they note what one of them has said."""


def says_first(line: str) -> bool:
    """Whether no other process of this command has said a line; from now on one has.

    Always, where the command has one process or the folder cannot be written in.
    """
    folder = os.environ.get(FOLDER)
    if not folder:
        return True
    name = hashlib.sha256(line.encode("utf-8", "surrogateescape")).hexdigest()
    try:
        return create_first(Path(folder) / name)
    except OSError:
        return True
