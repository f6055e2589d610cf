"""Which backend runs on this machine's device."""

from importlib import import_module
from typing import Any

from vllm.platforms import current_platform


def device() -> str:
    """The device: "cpu", "cuda", or "" for one that the plugin has no backend for."""
    if current_platform.is_cpu():
        return "cpu"
    return "cuda" if current_platform.is_cuda() else ""


def backend() -> Any:
    """The backend's class."""
    name = device()
    return getattr(import_module(f"hyperscale.engines.vllm.backend_{name}"), f"{name.capitalize()}RaggedBackend")
