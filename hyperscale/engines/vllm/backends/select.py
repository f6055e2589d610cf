"""Which backend runs on this machine's device."""

from importlib import import_module
from typing import Any

from hyperscale.engines.vllm.devices import device


def backend() -> Any:
    """The backend's class."""
    name = device()
    return getattr(import_module(f"hyperscale.engines.vllm.backends.{name}"), f"{name.capitalize()}RaggedBackend")
