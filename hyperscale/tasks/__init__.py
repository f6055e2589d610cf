"""Turns a task file and a data set into problems with prompts and targets."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.tasks.task import Doc as Doc
    from hyperscale.tasks.task import Task as Task
    from hyperscale.tasks.task import context_of as context_of
    from hyperscale.tasks.task import fingerprint as fingerprint
    from hyperscale.tasks.task import prompt_hash as prompt_hash
    from hyperscale.tasks.task import without_context as without_context
    from hyperscale.tasks.task_files import available as available
    from hyperscale.tasks.task_files import load as load
    from hyperscale.tasks.task_files import read as read

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "task": ["Doc", "Task", "context_of", "fingerprint", "prompt_hash", "without_context"],
        "task_files": ["available", "load", "read"],
    },
)
