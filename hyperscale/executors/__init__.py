"""Several engines side by side: in processes of this machine, or as Ray actors over many nodes.

`PooledEngine` is an engine made of engines, so whoever generates with one generates with many. Three parts that do not
know each other's insides: `dispatcher` decides who generates what and what becomes of it when an engine is lost,
`worker` is the far end (an engine in a process, fed with requests), and an `Executor` (`local`, `ray`) places workers,
carries messages and notices that one is gone.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.executors.pooled_engine import PooledEngine as PooledEngine

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"pooled_engine": ["PooledEngine"]})
