"""Triton kernels; their names say decode or chunk (of a prompt) first."""
