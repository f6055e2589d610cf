"""Chooses the attention backend for this machine's device."""

from importlib import import_module
from typing import Any

from hyperscale.engines.vllm import devices


def backend_class() -> Any:
    """`CpuRaggedBackend` or `CudaRaggedBackend`; the other device's module is not imported."""
    device = devices.current_device()
    return getattr(import_module(f"hyperscale.engines.vllm.backends.{device}"), f"{device.capitalize()}RaggedBackend")
