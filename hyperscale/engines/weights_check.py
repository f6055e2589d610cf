"""Holds a checkpoint's tensors against its model class before any engine loads them.

transformers and vLLM drop tensors that their classes have no place for, and take raw codes of quantised weights for
numbers. The comparison reads the headers of files alone.
"""

import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from hyperscale.errors import ModelError
from hyperscale.methods.core.dms_config import GateConfig, has_gates
from hyperscale.methods.core.dms_gate import attach_gates
from hyperscale.models.weight_files import StoredTensor, find_weight_files, load_tensors, read_header, read_tensors
from hyperscale.utils.hub import model_errors

_FLOATS = ("F64", "F32", "F16", "BF16")
_EMBEDDING, _OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
_SHOWN = 3  # names in a message


def check_weights(folder: Path, config: Any) -> None:
    """Refuse a checkpoint whose tensors are not those of its model.

    Rotary frequencies that old versions saved (``rotary_emb.inv_freq``) are computed anew, and an output layer that is
    tied to the embedding may be stored beside it, if it is equal.

    Args:
        folder: A local checkpoint.
        config: Its transformers configuration.

    Raises:
        ModelError: A file is missing or broken; or a tensor is missing, has no place, has another shape, or holds codes
            instead of numbers. The message names it.
    """
    tensors = read_tensors(folder)
    expected = expected_shapes(config)
    # The inner model saved by itself; transformers puts the name in front.
    if not any(name.startswith("model.") for name in tensors):
        tensors = {f"model.{name}" if name != _OUTPUT else name: tensor for name, tensor in tensors.items()}
    tensors |= _gates_beside(folder, expected)
    tied = bool(config.tie_word_embeddings)
    required = expected.keys() - ({_OUTPUT} if tied else set())
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
    _check_names(folder, config, kept, required, expected)
    for name, tensor in kept.items():
        if tensor.dtype not in _FLOATS:
            raise ModelError(
                f"{name} in {tensor.file} is stored as {tensor.dtype}: quantised weights do not run here, pass the "
                "original ones"
            )
        if tensor.shape != expected[name]:
            raise ModelError(
                f"{name} in {tensor.file} has shape {_format_shape(tensor.shape)}, and config.json makes it "
                f"{_format_shape(expected[name])}"
            )
    if tied and _OUTPUT in kept:
        _check_tied(folder)


def expected_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that a model has, gates of DMS included, by its configuration.

    Raises:
        ModelError: The configuration makes no model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with model_errors("config.json makes no model"), torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes that end in an error
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        if has_gates(config):
            attach_gates(model, separate=GateConfig.from_hf(config).separate)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _gates_beside(folder: Path, expected: Mapping[str, Any]) -> dict[str, StoredTensor]:
    """Gates in safetensors files of their own beside the weights.

    Raises:
        ModelError: Such a file holds anything else: one engine would read it and another would not.
    """
    used = set(find_weight_files(folder))
    found: dict[str, StoredTensor] = {}
    for file in sorted(set(folder.glob("*.safetensors")) - used):
        gates = {tensor.name: tensor for tensor in read_header(file)}
        if not all(".dms_" in name and name in expected for name in gates):
            raise ModelError(
                f"{file} is not among the files that hold the weights ({_list(sorted(path.name for path in used))}): "
                "move it elsewhere"
            )
        found |= gates
    return found


def _check_names(
    folder: Path, config: Any, tensors: Collection[str], required: Collection[str], expected: Collection[str]
) -> None:
    missing, surplus = sorted(set(required) - set(tensors)), sorted(set(tensors) - set(expected))
    if surplus:
        also = f"; and it lacks {_list(missing)}" if missing else ""
        raise ModelError(
            f"the checkpoint {folder} has tensors that its model has no place for: {_list(surplus)}{also}"
            + _explain(surplus, config)
        )
    if missing:
        raise ModelError(f"the checkpoint {folder} lacks tensors: {_list(missing)}")


def _list(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if names[_SHOWN:] else "")


def _explain(surplus: Iterable[str], config: Any) -> str:
    """What tensors without a place most likely are."""
    names = list(surplus)
    if any("scale" in name or "qweight" in name or "qzeros" in name or "zero_point" in name for name in names):
        return " (quantised weights do not run here: pass the original ones)"
    if any(".dms_" in name for name in names):
        return " (gates with a projection of their own need dms_separate_alpha = true in config.json)"
    if any("lora_" in name for name in names):
        return " (merge the adapter into the weights first)"
    if any(name.endswith(".bias") for name in names):
        return " (biases need attention_bias or mlp_bias in config.json)"
    layers = [
        int(part)
        for name in names
        for part in name.split(".")[2:3]
        if name.startswith("model.layers.") and part.isdigit()
    ]
    if layers and max(layers) >= config.num_hidden_layers:
        return f" (config.json says num_hidden_layers = {config.num_hidden_layers})"
    return ""


def _format_shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def _check_tied(folder: Path) -> None:
    """Refuse an output layer that is said to be the embedding and is not: engines differ in which they use."""
    import torch

    stored = load_tensors(folder, {_EMBEDDING, _EMBEDDING.removeprefix("model."), _OUTPUT})
    output = stored.pop(_OUTPUT)
    (embedding,) = stored.values()
    if not torch.equal(embedding, output):
        raise ModelError(
            f"config.json of {folder} ties the output layer to the embedding (tie_word_embeddings), and the file has "
            f"another {_OUTPUT}: set it to false if that one is meant, or leave the tensor out"
        )
