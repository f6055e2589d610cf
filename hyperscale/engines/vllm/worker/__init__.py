"""The workers' side: which pages and entries each list has, what a step evicts and writes, and the report of it.

`cache_worker` is what the connector talks to, with `cpu` and `cuda` as its two kinds; `tables` and `staged_tables` hold
the state; `methods` are the eviction methods; `reference_attention` is a whole step in plain torch, which the CPU runs
and which CUDA's kernels are held against; `memory` takes the tables' share out of the memory for the cache.
"""
