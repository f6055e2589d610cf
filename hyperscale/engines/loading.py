"""Loading transformers checkpoints, with DMS gates where they have them."""

from pathlib import Path
from typing import Any

import torch

from hyperscale.engines.families import FAMILIES
from hyperscale.errors import ModelError
from hyperscale.methods.core.dms_gate import GateConfig, attach_gates
from hyperscale.utils import hub


def load_model(path: Path | str, *, device: str = "cpu", dtype: torch.dtype | str = torch.float32) -> tuple[Any, Any]:
    """Load a causal LM and its tokenizer for inference.

    If ``config.json`` has ``dms_window_size``, gates are attached and their tensors loaded.

    Args:
        path: A folder, or the name of a repository on the Hugging Face hub.
        device: Where to put the weights, as torch names it.
        dtype: A torch dtype or its name.

    Raises:
        ModelError: The checkpoint is missing, not of a supported family, incomplete, or the device is not there.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if isinstance(dtype, str):
        dtype = _dtype(dtype)
    check_device(device)
    name = str(path)
    local = Path(path)
    if local.is_dir() and not (local / "config.json").is_file():
        raise ModelError(f"{name} holds no config.json: it is not a transformers checkpoint")
    if not local.exists() and (
        isinstance(path, Path) or local.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1
    ):
        raise ModelError(f"there is no checkpoint at {name}")
    with hub.model_errors(f"cannot load {name}"):
        config = AutoConfig.from_pretrained(name)
        check_config(config)
        model = _with_gates(AutoModelForCausalLM, name, config, dtype)
        tokenizer = AutoTokenizer.from_pretrained(name)
    model.to(device).eval().requires_grad_(False)
    return model, tokenizer


def check_config(config: Any) -> None:
    """Refuse architectures the engine does not run.

    Raises:
        ModelError: Unknown family, or layers with sliding-window attention.
    """
    family = getattr(config, "model_type", None)
    if family not in FAMILIES:
        raise ModelError(f"models of type {family!r} are not supported; supported: {', '.join(FAMILIES)}")
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        raise ModelError("models with sliding-window attention layers are not supported")


def _with_gates(auto: Any, name: str, config: Any, dtype: torch.dtype) -> Any:
    model, info = auto.from_pretrained(name, config=config, dtype=dtype, output_loading_info=True)
    missing = set(info["missing_keys"])
    if getattr(config, "dms_window_size", None) is not None:
        # The gates are not part of the transformers class, so its loader leaves their tensors over.
        attach_gates(model, separate=GateConfig.from_hf(config).separate)
        missing |= _load_gates(model, name)
    if missing:
        raise ModelError(f"the checkpoint {name} lacks tensors: {', '.join(sorted(missing)[:3])}")
    return model


def _load_gates(model: Any, name: str) -> set[str]:
    """Fill the gates' tensors from the safetensors files; returns the names that were not found."""
    from safetensors import safe_open

    wanted = {key for key in model.state_dict() if ".dms_" in key}
    folder = Path(name) if Path(name).is_dir() else _snapshot(name)
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as tensors:
            found.update({key: tensors.get_tensor(key) for key in tensors.keys() if key in wanted})  # noqa: SIM118
    model.load_state_dict(found, strict=False)
    return wanted - set(found)


def _snapshot(name: str) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=["*.safetensors"]))


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ModelError(f"unknown dtype {name!r}; use float32, bfloat16 or float16")
    return dtype


def check_device(device: str) -> None:
    """Refuse devices that torch does not know or that are not here.

    Raises:
        ModelError: It is one.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ModelError(f"unknown device {device!r}; use cpu or cuda") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ModelError("no CUDA device is available; use --device cpu")
