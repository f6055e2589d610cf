"""The scheduler's side: admits requests, hands out superblocks, and books what chains cost.

`superblocks` decides how many superblocks a request gets and whether there is room for a new one; `manager` is the
class through which vLLM asks it; `channel` exchanges messages with the workers; `costs` adds up reads and peaks;
`output_hook` makes vLLM book a step's report before it frees finished requests.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.engines.vllm.scheduler.channel import SchedulerChannel as SchedulerChannel
    from hyperscale.engines.vllm.scheduler.manager import RaggedManager as RaggedManager
    from hyperscale.engines.vllm.scheduler.superblocks import SuperblockAllocator as SuperblockAllocator

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "channel": ["SchedulerChannel"],
        "manager": ["RaggedManager"],
        "superblocks": ["SuperblockAllocator"],
    },
)
