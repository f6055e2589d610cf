"""Kernels of chunks of prompts.

A layer runs `dms_expiry` (for DMS), `plan`, `reads` (where reads are wanted), `attention` and `write`, in this order.
Where nothing expires and FlashAttention 3 is there, it runs `append` and `fa3` instead. `received` adds up what keys
receive, for H2O.
"""
