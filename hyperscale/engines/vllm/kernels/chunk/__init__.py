"""Kernels of chunks of prompts.

A layer runs `plan`, `attention` and `write`, in this order.
Where nothing expires and FlashAttention 3 is there, it runs `append` and `fa3` instead. `received` adds up what keys
receive, for H2O.
"""
