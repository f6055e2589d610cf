"""Says which device vLLM runs on here."""

from vllm.platforms import current_platform


def current_device() -> str:
    """The device: "cpu", "cuda", or "" for one that the plugin has no backend for."""
    if current_platform.is_cpu():
        return "cpu"
    return "cuda" if current_platform.is_cuda() else ""


def has_float8() -> bool:
    """Whether kernels can convert float8 e4m3; true too where there is no GPU, and kernels are interpreted."""
    capability = current_platform.get_device_capability()
    return capability is None or capability >= (8, 9)
