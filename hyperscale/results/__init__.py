"""Owns the folder of a run: its description, its chains as typed records, and the points that are made of them.

`read` gives the runs of a folder; a `Run` has samples and points. `Store` opens a folder for writing.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.results.folder import Run as Run
    from hyperscale.results.folder import folders as folders
    from hyperscale.results.folder import read as read
    from hyperscale.results.manifest import LOCK as LOCK
    from hyperscale.results.manifest import POINTS as POINTS
    from hyperscale.results.manifest import RUN_FILE as RUN_FILE
    from hyperscale.results.manifest import SAMPLES as SAMPLES
    from hyperscale.results.manifest import SCHEMA as SCHEMA
    from hyperscale.results.samples import Sample as Sample
    from hyperscale.results.store import Store as Store

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "manifest": ["LOCK", "POINTS", "RUN_FILE", "SAMPLES", "SCHEMA"],
        "samples": ["Sample"],
        "folder": ["Run", "folders", "read"],
        "store": ["Store"],
    },
)
