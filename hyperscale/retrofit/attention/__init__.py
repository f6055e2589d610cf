"""Attention over packed documents for training, with or without the mask of delayed eviction.

`packed_attention` is what a transformers model calls, `masks` what a batch tells it of its documents. `fused` computes
it with the project's own kernels (`kernels`), which only CUDA has.
"""
