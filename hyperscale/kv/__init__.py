"""The KV cache with a length of its own per head, its quantised formats, and the ledger: the one definition of cost.

`KVTrace` defines costs, `Ledger` counts them as a chain grows, `dense_reads` and `dense_peak` are of a full cache.
`RaggedCache` holds the entries of all chains of a batch.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.kv.cache import RaggedCache as RaggedCache
    from hyperscale.kv.ledger import Ledger as Ledger
    from hyperscale.kv.prefilled import PrefilledPrompt as PrefilledPrompt
    from hyperscale.kv.row_entries import RowEntries as RowEntries
    from hyperscale.kv.snapshot import Snapshot as Snapshot
    from hyperscale.kv.trace import KVTrace as KVTrace
    from hyperscale.kv.trace import dense_peak as dense_peak
    from hyperscale.kv.trace import dense_reads as dense_reads

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cache": ["RaggedCache"],
        "ledger": ["Ledger"],
        "prefilled": ["PrefilledPrompt"],
        "row_entries": ["RowEntries"],
        "snapshot": ["Snapshot"],
        "trace": ["KVTrace", "dense_peak", "dense_reads"],
    },
)
