"""Loads transformers checkpoints, with DMS gates where they have them, and refuses what the engines do not run."""

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
        dtype = _parse_dtype(dtype)
    check_device(device)
    _check_path(path)
    name = str(path)
    with hub.model_errors(f"cannot load {name}"):
        config = AutoConfig.from_pretrained(name)
        check_config(config)
        model = _load_with_gates(AutoModelForCausalLM, name, config, dtype)
        tokenizer = AutoTokenizer.from_pretrained(name)
    model.to(device).eval().requires_grad_(False)
    return model, tokenizer


def _check_path(path: Path | str) -> None:
    """Refuse a folder without a checkpoint, and what is neither a folder nor looks like a hub id."""
    name, folder = str(path), Path(path)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError(f"{name} holds no config.json: it is not a transformers checkpoint")
    is_hub_id = isinstance(path, str) and name.count("/") == 1 and not name.startswith((".", "~", "/"))
    if not folder.exists() and not is_hub_id:
        raise ModelError(f"there is no checkpoint at {name}")


def check_config(config: Any) -> None:
    """Refuse architectures that the engines on transformers do not run.

    Raises:
        ModelError: Unknown family, or layers with sliding-window attention.
    """
    family = getattr(config, "model_type", None)
    if family not in FAMILIES:
        raise ModelError(f"models of type {family!r} are not supported; supported: {', '.join(FAMILIES)}")
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        raise ModelError("models with sliding-window attention layers are not supported")


def _load_with_gates(auto_class: Any, name: str, config: Any, dtype: torch.dtype) -> Any:
    model, info = auto_class.from_pretrained(name, config=config, dtype=dtype, output_loading_info=True)
    missing = set(info["missing_keys"])  # transformers would give these random values and a warning
    if getattr(config, "dms_window_size", None) is not None:
        # The gates are not part of the transformers class, so its loader leaves their tensors over.
        attach_gates(model, separate=GateConfig.from_hf(config).separate)
        missing |= _load_gates(model, name)
    if missing:
        raise ModelError(f"the checkpoint {name} lacks tensors: {', '.join(sorted(missing)[:3])}")
    return model


def _load_gates(model: Any, checkpoint: str) -> set[str]:
    """Fill the gates' tensors from the safetensors files; returns the names that were not found."""
    from safetensors import safe_open

    # transformers drops tensors that its class does not have, so the files are read once more.
    gate_names = {name for name in model.state_dict() if ".dms_" in name}
    folder = Path(checkpoint) if Path(checkpoint).is_dir() else _download_tensors(checkpoint)
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            tensors.update({name: file.get_tensor(name) for name in file.keys() if name in gate_names})  # noqa: SIM118
    model.load_state_dict(tensors, strict=False)
    return gate_names - set(tensors)


def _download_tensors(name: str) -> Path:
    """The folder with a hub repository's tensors; it is there already once transformers has loaded the model."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=["*.safetensors"]))


def _parse_dtype(name: str) -> torch.dtype:
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
