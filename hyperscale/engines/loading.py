"""Loads transformers checkpoints, with DMS gates where they have them, and refuses what the engines do not run."""

from pathlib import Path
from typing import Any

import torch

from hyperscale.engines.config_check import load_supported_config
from hyperscale.engines.devices import check_device
from hyperscale.engines.weights_check import check_weights
from hyperscale.errors import ModelError
from hyperscale.methods.core.dms_config import GateConfig, has_gates
from hyperscale.methods.core.dms_gate import attach_gates
from hyperscale.models.weight_files import ADAPTER, explain_adapter, find_weight_files, load_file_tensors, load_tensors
from hyperscale.utils import hub


def load_model(path: Path | str, *, device: str = "cpu", dtype: torch.dtype | str = torch.float32) -> tuple[Any, Any]:
    """Load a causal LM and its tokenizer for inference.

    If it was retrofitted with DMS, gates are attached and their tensors loaded.

    Args:
        path: A folder, or a hub id with or without a revision: ``owner/name@revision``.
        device: Where to put the weights, as torch names it.
        dtype: A torch dtype or its name.

    Raises:
        ModelError: The checkpoint is missing, not of a supported family, incomplete, or the device is not there.
    """
    from transformers import AutoModelForCausalLM

    if isinstance(dtype, str):
        dtype = _parse_dtype(dtype)
    check_device(device)
    _check_path(path)
    name = str(path)
    config = load_supported_config(name)
    if Path(path).is_dir():
        check_weights(Path(path), config)
    repository, revision = hub.split_revision(name)
    with hub.model_errors(f"cannot load {name}"):
        model, info = AutoModelForCausalLM.from_pretrained(
            repository,
            revision=revision,
            config=config,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `check_weights` has a better message than transformers
            trust_remote_code=False,
        )
    if not Path(path).is_dir():  # only now all files are here
        check_weights(hub.cached_folder(name), config)
    missing = set(info["missing_keys"])  # transformers would give these random values and a warning
    if has_gates(config):
        # The gates are not part of the transformers class, so its loader leaves their tensors over.
        attach_gates(model, separate=GateConfig.from_hf(config).separate)
        missing |= _load_gates(model, Path(path) if Path(path).is_dir() else hub.cached_folder(name))
    if missing:
        raise ModelError(f"the checkpoint {name} lacks tensors: {', '.join(sorted(missing)[:3])}")
    tokenizer = hub.load_tokenizer(name)
    model.to(device).eval().requires_grad_(False)
    return model, tokenizer


def check_checkpoint(path: str) -> None:
    """Refuse a checkpoint that would not load, by its configuration and, in a local folder, the headers of its files.

    Args:
        path: A folder or a hub id.

    Raises:
        ModelError: It is of a kind that does not run here, or is broken.
    """
    config = load_supported_config(path)
    if Path(path).is_dir():
        check_weights(Path(path), config)
    elif hub.available_file(path, ADAPTER[0]):
        raise ModelError(explain_adapter(path, ADAPTER[0]))


def _check_path(path: Path | str) -> None:
    """Refuse a folder without a checkpoint, and what is neither a folder nor looks like a hub id."""
    name, folder = str(path), Path(path)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError(f"{name} holds no config.json: it is not a transformers checkpoint")
    is_hub_id = (
        isinstance(path, str) and name.partition("@")[0].count("/") == 1 and not name.startswith((".", "~", "/"))
    )
    if not folder.exists() and not is_hub_id:
        raise ModelError(f"there is no checkpoint at {name}")


def _load_gates(model: Any, folder: Path) -> set[str]:
    """Fill the gates' tensors from the files, as transformers drops what its class does not have.

    Returns:
        The names that were not found.
    """
    names = {name for name in model.state_dict() if ".dms_" in name}
    tensors = load_tensors(folder, names)
    for file in sorted(set(folder.glob("*.safetensors")) - set(find_weight_files(folder))):
        tensors |= load_file_tensors(file, names)
    model.load_state_dict(tensors, strict=False)
    return names - set(tensors)


def _parse_dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ModelError(f"unknown dtype {name!r}; use float32, bfloat16 or float16")
    return dtype
