"""Ends a process of vLLM's when the harness that started it is gone."""

import os
import threading
from multiprocessing import parent_process

_TOGETHER = "HYPERSCALE_VLLM_ENDS_WITH_PARENT"


_WATCHER = "hyperscale-vllm-parent"


def end_with_parent() -> None:
    """In a process that vLLM has started for the harness, end when the harness is killed; a second time does nothing.

    Else vLLM's would wait for it forever, with the memory that the run needs when it is resumed.
    """
    parent = parent_process()
    if parent is None or not os.environ.get(_TOGETHER) or _WATCHER in (thread.name for thread in threading.enumerate()):
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name=_WATCHER, daemon=True).start()
