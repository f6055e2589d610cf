"""Which backend runs on this machine's device."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from vllm.platforms import current_platform


def _name() -> tuple[str, str]:
    device = "cpu" if on_cpu() else "cuda"
    return f"hyperscale.engines.vllm.backend_{device}", f"{device.capitalize()}RaggedBackend"


def on_cpu() -> bool:
    """Whether this machine's device is the CPU."""
    return bool(current_platform.is_cpu())


def there() -> bool:
    """Whether the plugin has a backend for the device."""
    return find_spec(_name()[0]) is not None


def backend() -> Any:
    """The backend's class."""
    module, name = _name()
    return getattr(import_module(module), name)
