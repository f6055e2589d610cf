"""Completes a saved checkpoint with what other codes read: transformers 4, NVIDIA's and FastDMS's.

NVIDIA's loader (github.com/NVIDIA/Model-Optimizer, experimental/dms) asserts that the window exceeds the block of its
paged cache, and takes 256 for the latter where ``config.json`` names none. transformers 4, which it runs on, reads the
base of RoPE from ``rope_theta``, where transformers 5 writes ``rope_parameters``. FastDMS (github.com/shisa-ai/FastDMS)
reads ``dms_metadata.json``.
"""

import json
from pathlib import Path
from typing import Any

from hyperscale.methods.core.dms_config import METADATA, GateConfig, read_gate
from hyperscale.utils.files import write_atomic

#: Block of NVIDIA's paged cache, in tokens: the smallest that FlashAttention 2 takes.
BLOCK = 256


def complete_saved_config(folder: Path) -> None:
    """Add keys to a saved ``config.json``, and FastDMS's file where the gates are of its format.

    Args:
        folder: The checkpoint, as transformers has saved it.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    gate = read_gate(config)
    more = _rope_keys(config) | ({} if gate is None else _block_key(gate))
    write_atomic(path, json.dumps(config | more, indent=2, sort_keys=True) + "\n")
    if gate is not None and gate.format == "fastdms":
        metadata = {
            "window_size": gate.window,
            "alpha_scale": gate.alpha_scale,
            "alpha_offset": gate.initial_offset,
            "target_cr": gate.cr,
            "context_len": config.get("max_position_embeddings"),
        }
        write_atomic(folder / METADATA, json.dumps(metadata, indent=2) + "\n")


def _rope_keys(config: dict[str, Any]) -> dict[str, Any]:
    """RoPE as transformers 4 reads it, beside ``rope_parameters``."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict) or "rope_theta" not in rope:
        return {}
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    is_scaled = scaling.get("rope_type", "default") != "default"
    return {"rope_theta": rope["rope_theta"]} | ({"rope_scaling": scaling} if is_scaled else {})


def _block_key(gate: GateConfig) -> dict[str, Any]:
    """The block of NVIDIA's cache: 256 if the window exceeds it, else the largest power of two that it exceeds."""
    if gate.window < 2:  # no block fits
        return {}
    block = min(BLOCK, 1 << ((gate.window - 1).bit_length() - 1))
    return {"dms_paged_attention_block_size": block}
