"""vLLM with a KV cache whose heads evict by themselves, as a plugin: see docs/vllm.md.

A *list* is what one KV head of one layer keeps of one request: entries in single-head *pages* of N tokens. vLLM's block
is a *superblock*: one page for every list of a worker, as many bytes as a dense block of N tokens. The scheduler hands
superblocks to requests; within a request the worker gives their pages to whichever list needs one.
"""
