"""Ends a process of vLLM's when the harness that started it is gone."""

import os
import threading
from multiprocessing import parent_process

END_WITH_PARENT = "HYPERSCALE_VLLM_ENDS_WITH_PARENT"
"""Environment variable that the harness sets for the processes that vLLM starts for it."""

_WATCHER = "hyperscale-vllm-parent"


def end_with_parent() -> None:
    """In a process that vLLM has started for the harness, end when the harness is killed; a second time does nothing.

    Else vLLM's process would wait for it forever, with the memory that the run needs when it is resumed.
    """
    parent = parent_process()
    is_watched = _WATCHER in (thread.name for thread in threading.enumerate())
    if parent is None or not os.environ.get(END_WITH_PARENT) or is_watched:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)  # not sys.exit, which would end this thread only

    threading.Thread(target=watch, name=_WATCHER, daemon=True).start()
