"""Tells whether a model's RoPE is the one that rules which rotate by themselves compute."""

import warnings
from copy import deepcopy
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from hyperscale.engines.families.names import FAMILIES
from hyperscale.engines.families.needs import NAME, Probe, run_probe
from hyperscale.methods.core.rotary import take_rope

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}  # of queries and keys, relative to their largest
_HALF_TOLERANCE = 3e-2  # in bfloat16 and float16
_TOKENS = 8  # in the vocabulary of a tiny model; more than `run_probe` shows it
_known: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def explain_rope(model: Any) -> str:
    """What `compare_rope` says of a loaded model, once for each; "" for families that tests hold."""
    if model.config.model_type in FAMILIES:
        return ""
    if model not in _known:
        _known[model] = compare_rope(model)
    return _known[model]


def explain_rope_of(config: Any) -> str:
    """What `compare_rope` says of a model by its transformers configuration alone, in less than a second.

    It is asked of a model of so many layers with one tiny head of random weights. What makes none is for the loaded
    model to tell.
    """
    from transformers import AutoModelForCausalLM

    small = deepcopy(config)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    one_head = {"head_dim": size, "hidden_size": size, "num_attention_heads": 1, "num_key_value_heads": 1}
    no_tokens = {"vocab_size": _TOKENS, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    for name, value in {**one_head, **no_tokens, "intermediate_size": 8}.items():
        setattr(small, name, value)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(small, dtype=torch.float32, trust_remote_code=False).eval()
            return compare_rope(model)
    except Exception:  # whatever transformers' classes raise of sizes that nobody publishes
        return ""


def compare_rope(model: Any) -> str:
    """What a loaded model has in the place of RoPE as `hyperscale.methods.core.rotary.rotate` computes it.

    Queries and keys of every layer are compared with those that the layer makes without RoPE and `rotate` turns: norms
    behind RoPE, pairs of neighbours and heads that are turned in part all differ.

    Returns:
        Something in words for the user, or "" if all layers have it.
    """
    inputs: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def note_inputs(_attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs.append((args, kwargs))

    hooks = [layer.self_attn.register_forward_pre_hook(note_inputs, with_kwargs=True) for layer in model.model.layers]
    try:
        calls = run_probe(model).calls
    finally:
        for hook in hooks:
            hook.remove()
    tolerance = _TOLERANCE.get(model.dtype, _HALF_TOLERANCE)
    plain, other = [], []
    for index, (layer, call, (args, kwargs)) in enumerate(zip(model.model.layers, calls, inputs, strict=True)):
        rope, identity = take_rope(kwargs["position_embeddings"])
        if kwargs["position_embeddings"][0].shape[-1] != call.key.shape[-1]:
            return "this model's turns a part of each head"
        probe = Probe()
        before, model.config._attn_implementation = model.config._attn_implementation, NAME
        try:
            with torch.inference_mode():
                layer.self_attn(*args, **{**kwargs, "position_embeddings": identity, NAME: probe})
        finally:
            model.config._attn_implementation = before
        (unturned,) = probe.calls
        pairs = [(call.query, unturned.query), (call.key, unturned.key)]
        if all(_equal(turned, straight, tolerance) for turned, straight in pairs):
            plain.append(str(index))
        elif not all(_equal(turned, rope(straight), tolerance) for turned, straight in pairs):
            other.append(str(index))
    if plain:
        return f"this model's layers {', '.join(plain)} have none"
    return "this model's is of another form than that of Llama" if other else ""


def _equal(left: Tensor, right: Tensor, tolerance: float) -> bool:
    return bool(torch.allclose(left, right, rtol=0, atol=tolerance * float(left.abs().max())))
