"""Attention backends for vLLM, one a device: the way from vLLM's batch to the mechanism (CPU) or the kernels (CUDA)."""
