"""Loads a checkpoint part by part into the shards of a model: no process ever holds more than its own part.

A model is built without storage (torch's device "meta"), sharded, given storage on its device, and filled from the
safetensors files, of which each process reads its rows.
"""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyperscale.errors import ModelError
from hyperscale.retrofit.low_rank.updates import is_update, start_values
from hyperscale.retrofit.parallel.ranks import Ranks


def find_files(folder: Path) -> dict[str, Path]:
    """The file of each tensor of a checkpoint; empty if it is not in safetensors."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / file for name, file in names.items()}
    single = folder / "model.safetensors"
    if not single.is_file():
        return {}
    with safe_open(single, "pt") as file:
        return dict.fromkeys(file.keys(), single)


def build_empty(config: Any, dtype: torch.dtype) -> Any:
    """A transformers causal LM without storage."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)


def is_empty(model: Any) -> bool:
    """Whether a model has no storage yet."""
    return bool(next(model.parameters()).is_meta)


def fill_model(model: Any, folder: Path, ranks: Ranks, device: torch.device) -> None:
    """Fill a sharded model whose storage is there from a checkpoint; gates, which it lacks, start at zero.

    Args:
        model: A causal LM, gates attached or not, whose embedding and output layer are not one tensor.
        folder: The checkpoint.
        ranks: The processes, each with its rows of a tensor (`torch.chunk` along the first dimension).
        device: This process's.

    Raises:
        ModelError: A tensor is missing.
    """
    files = find_files(folder)
    with _open_files() as opened, torch.no_grad():
        for name, parameter in model.named_parameters():
            own = parameter.to_local()
            if "dms_proj_alpha" in name:
                own.fill_(1.0 if "norm" in name else 0.0)
                continue
            rows = -(-parameter.shape[0] // ranks.count)
            first = min(ranks.rank * rows, parameter.shape[0])
            if is_update(name):
                own.copy_(start_values(name, parameter.shape)[first : first + own.shape[0]])
                continue
            name = name.replace(".base_layer.", ".")  # a projection that has an update
            if name not in files:
                raise ModelError(f"the checkpoint {folder} lacks tensors: {name}")
            stored: Tensor = opened(files[name]).get_slice(name)[first : first + own.shape[0]]
            # What is saved is bfloat16, so that is what a model starts from, whatever it is kept in.
            own.copy_(stored.to(torch.bfloat16))
    restore_buffers(model, device)


def restore_buffers(model: Any, device: torch.device) -> None:
    """Compute what is not stored, as the frequencies of RoPE; taken from a model of the same widths that is small."""
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model.config)
    config.num_hidden_layers, config.vocab_size, config.intermediate_size = 1, 8, 8
    config.pad_token_id = None
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:1]
    computed = dict(AutoModelForCausalLM.from_config(config).named_buffers())
    for name, _ in list(model.named_buffers()):
        owner, _, own_name = name.rpartition(".")
        setattr(model.get_submodule(owner), own_name, computed[name].to(device))


@contextmanager
def _open_files() -> Iterator[Any]:
    from contextlib import ExitStack

    from safetensors import safe_open

    with ExitStack() as stack:
        files: dict[Path, Any] = {}

        def opened(path: Path) -> Any:
            if path not in files:
                files[path] = stack.enter_context(safe_open(path, "pt"))
            return files[path]

        yield opened
