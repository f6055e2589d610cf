"""Says which device vLLM runs on here."""

from vllm.platforms import current_platform


def current_device() -> str:
    """The device: "cpu", "cuda", or "" for one that the plugin has no backend for."""
    if current_platform.is_cpu():
        return "cpu"
    return "cuda" if current_platform.is_cuda() else ""
