"""Tasks: from a task file and a data set to problems with prompts and targets."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.tasks.task import Doc as Doc
    from hyperscale.tasks.task import Task as Task
    from hyperscale.tasks.task import available as available
    from hyperscale.tasks.task import fingerprint as fingerprint
    from hyperscale.tasks.task import load as load
    from hyperscale.tasks.task import prompt_hash as prompt_hash
    from hyperscale.tasks.task import read as read

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "task": ["Doc", "Task", "available", "fingerprint", "load", "prompt_hash", "read"],
    },
)
