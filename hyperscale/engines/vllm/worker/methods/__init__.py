"""The eviction methods as vLLM's workers run them, one file a method: each decides when entries expire.

`base` is the contract, `registry` finds a method by its name. Their definitions are those of `hyperscale.methods`.
"""
