"""The workers' side: which pages and entries each list has, what a step evicts and writes, and the report of it.

`cache_worker` is what the connector talks to, with `cpu` and `cuda` as its two kinds; `tables` and `staged_tables` hold
the state; `methods` are the eviction methods; `reference_attention` is a whole step in plain torch, which the CPU runs
and which CUDA's kernels are held against; `memory` takes the tables' share out of the memory for the cache.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.engines.vllm.worker.cache_worker import CacheWorker as CacheWorker
    from hyperscale.engines.vllm.worker.tables import EntryTables as EntryTables

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"cache_worker": ["CacheWorker"], "tables": ["EntryTables"]}
)
