"""Attention backends for vLLM, one a device."""
