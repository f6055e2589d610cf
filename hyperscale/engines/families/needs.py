"""Decides whether the torch engine is right for a family of models, by what its class in transformers needs.

The engine replaces a model's attention over earlier tokens and its cache, and trusts the class for everything else. So
it is right where all that a token learns of earlier ones comes through one call of the attention function in each
layer, with queries and keys that carry their positions already, one key and one value a token and KV head, and a
factor on the scores. The configuration tells some of what breaks this; the rest is seen by running the class without
weights, with an attention function that notes what it is asked for.
"""

import inspect
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from hyperscale.errors import ModelError, first_line
from hyperscale.utils.hub import model_errors

NAME = "hyperscale_probe"
"""Name of the attention function that notes calls; also of the argument that hands it a `Probe`."""
_TOKENS = 3  # of the text that a class is run on
_HANDLED = {"hidden_states", "position_embeddings", "attention_mask", "past_key_values", "kwargs"}
"""Arguments of an attention module. One that takes positions besides goes by them in a way of its own, such as scores
that grow with the position (Llama 4)."""
_MIXTURES = ("expert", "moe", "router")
_STATEFUL = ("mamba", "recurrent", "rwkv", "deltanet", "shortconv")


@dataclass(frozen=True)
class Call:
    """One call of the attention function.

    Attributes:
        module: The attention module.
        query: (batch, query_heads, tokens, head_dim).
        key: (batch, kv_heads, tokens, head_dim).
        value: As the key, in a model that runs here.
        mask: A mask of the model's own, or None.
        arguments: All that came by keyword.
    """

    module: Any
    query: Any
    key: Any
    value: Any
    mask: Any
    arguments: Mapping[str, Any]


@dataclass
class Probe:
    """What a forward pass asks of attention.

    Attributes:
        calls: Calls of the attention function, in their order.
        rotated: For each layer, whether it was handed position embeddings.
    """

    calls: list[Call] = field(default_factory=list)
    rotated: list[bool] = field(default_factory=list)


def note_call(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, dropout: float = 0.0, **arguments: Any
) -> tuple[Any, None]:
    """An attention function that attends to nothing and notes what it was asked for."""
    probe = arguments.pop(NAME, None)
    if probe is None:
        raise ModelError("its layers do not hand arguments on to the attention function")
    probe.calls.append(Call(module, query, key, value, attention_mask, {"dropout": dropout, **arguments}))
    return query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[-1]), None


def family_config(config: Mapping[str, Any]) -> Any:
    """The transformers configuration of a ``config.json``, with the defaults of its family.

    Raises:
        ModelError: transformers has no decoder of this family, or the values make no configuration.
    """
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    family = config.get("model_type")
    if family not in CONFIG_MAPPING or family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(
            f"models of type {family!r} are not supported: transformers {transformers.__version__} has no decoder of "
            "this type"
            + ("; code that comes with a checkpoint (auto_map) is never run" if "auto_map" in config else "")
        )
    values = {key: value for key, value in config.items() if key not in ("model_type", "auto_map")}
    with model_errors("config.json makes no model"):
        return CONFIG_MAPPING[family].from_dict(values)


def check_settings(family: str, config: Any) -> None:
    """Refuse a family whose configuration names something that the torch engine does not compute.

    Args:
        family: The value of ``model_type``.
        config: Its transformers configuration.

    Raises:
        ModelError: It does; the message has the reasons.
    """
    _refuse(family, list(_reasons_of_config(config)))


def check_class(config: Mapping[str, Any]) -> bool:
    """Refuse a family whose class has or asks for something that the torch engine does not compute.

    Args:
        config: The contents of a ``config.json``.

    Returns:
        Whether all its layers have norms of queries and keys.

    Raises:
        ModelError: It does; the message has the reasons. Or the values make no model.
    """
    return _check_class(json.dumps(dict(config), sort_keys=True, default=str))


@lru_cache(maxsize=16)  # a run asks once for every arm
def _check_class(text: str) -> bool:
    values = json.loads(text)
    model = _model_without_weights(family_config(values))
    _refuse(values["model_type"], list(_reasons_of_class(model)))
    return all(_has_norms(layer.self_attn) for layer in model.model.layers)


def _refuse(family: str, reasons: list[str]) -> None:
    if reasons:
        raise ModelError(
            f"models of type {family!r} are not supported: this one has {' and '.join(reasons)}, which the engines do "
            "not run"
        )


def _reasons_of_config(config: Any) -> Iterator[str]:
    """What the configuration itself names, each as something that a model has."""
    try:
        text = config.get_text_config()
    except ValueError:  # it has several
        text = None
    if text is not config:
        yield "a text model inside a multimodal one"
    if text is None:
        return
    if getattr(text, "is_heterogeneous", False):
        yield "layers of unlike sizes"
        return
    kinds = set(getattr(text, "layer_types", None) or ())
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    if "sliding_attention" in kinds or (window is not None and not kinds):
        yield "sliding-window attention layers"
    if others := sorted(map(str, kinds - {"full_attention", "sliding_attention"})):
        yield f"layers of type {', '.join(others)}"
    if getattr(text, "attn_logit_softcapping", None) is not None:
        yield "soft-capped attention scores"
    if getattr(text, "alibi", False) or getattr(text, "position_embedding_type", None) == "alibi":
        yield "attention scores that fall with distance (ALiBi)"
    if getattr(text, "kv_lora_rank", None) is not None:
        yield "multi-head latent attention (kv_lora_rank)"
    if getattr(text, "is_encoder_decoder", False) or getattr(text, "add_cross_attention", False):
        yield "cross attention"
    if getattr(text, "use_bidirectional_attention", None) or not getattr(text, "is_causal", True):
        yield "attention to later tokens"
    rope = getattr(text, "rope_parameters", None)
    scaling = rope.get("llama_4_scaling_beta") if isinstance(rope, Mapping) else None
    if getattr(text, "attn_temperature_tuning", None) or scaling:
        yield "attention scores whose factor grows with the position"


def _model_without_weights(config: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    with model_errors("config.json makes no model"), torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False).eval()


def _has_norms(attention: Any) -> bool:
    """Whether an attention module has a norm of queries and one of keys, by the names that transformers gives them."""
    names = [name for name, _ in attention.named_children() if name.endswith("norm")]
    return all(any(name.startswith(start) for name in names) for start in (("q_", "query_"), ("k_", "key_")))


def _reasons_of_class(model: Any) -> Iterator[str]:
    """What a model's class has or asks for, seen by running it without weights."""
    found = list(_reasons_of_modules(model))
    if not found:
        try:
            probe = run_probe(model)
        except ModelError as error:
            found = [f"a class that does not go through one attention function ({error})"]
        except Exception as error:  # whatever transformers' classes raise
            found = [f"a class that does not run without weights ({first_line(error)})"]
        else:
            found = list(_reasons_of_calls(probe, model))
    yield from found


def _reasons_of_modules(model: Any) -> Iterator[str]:
    """What the parts of a model tell; without any of it the model has layers that can be hooked."""
    from torch.nn.modules.conv import _ConvNd

    names = [(name.lower(), type(module).__name__.lower()) for name, module in model.named_modules()]
    if any(mark in part for name, kind in names for mark in _MIXTURES for part in (name.rpartition(".")[2], kind)):
        yield "mixtures of experts (a chain's arithmetic would depend on its batch)"
    is_convolving = any(isinstance(module, _ConvNd) for module in model.modules())
    if is_convolving or any(mark in kind for _, kind in names for mark in _STATEFUL):
        yield "layers with a state beside keys and values (convolutions or recurrences)"
    inner = getattr(model, "model", None)
    if not hasattr(inner, "rotary_emb"):
        yield _positions(model)
        return
    layers = getattr(inner, "layers", None)
    if layers is None or not all(hasattr(layer, "self_attn") for layer in layers):
        yield "layers without a self_attn each"
        return
    forward = inspect.signature(type(layers[0].self_attn).forward).parameters
    if others := sorted(set(forward) - _HANDLED - {"self"}):
        yield f"attention that is handed {', '.join(others)} besides rotated positions"
    if not all(getattr(layer.self_attn, "is_causal", True) for layer in layers):
        yield "attention to later tokens"
    if "logits_to_keep" not in inspect.signature(type(model).forward).parameters:
        yield "an output layer that cannot be asked for one token's logits"


def _positions(model: Any) -> str:
    """Where a model has its positions that has no RoPE in the place where the engine looks for it."""
    from torch import nn

    if any(name.rpartition(".")[2] == "rotary_emb" for name, _ in model.named_modules()):
        return "decoder layers or RoPE under other names than model.layers and model.rotary_emb"
    code = vars(inspect.getmodule(type(model)))
    if any("alibi" in name.lower() for name in code):
        return "attention scores that fall with distance (ALiBi)"
    tables = [name for name, module in model.named_modules() if isinstance(module, nn.Embedding)]
    if any("pos" in name or "wpe" in name for name in tables):
        return "learned positions, without RoPE"
    return "positions that come otherwise than by RoPE (model.rotary_emb)"


def run_probe(model: Any) -> Probe:
    """Run a model on three tokens and note what it asks of attention.

    Args:
        model: A transformers causal LM with decoder layers in ``model.layers``, with or without storage.
    """
    import torch
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, note_call)
    probe = Probe()

    def note_layer(_layer: Any, _args: Any, kwargs: Mapping[str, Any]) -> None:
        probe.rotated.append(kwargs.get("position_embeddings") is not None)

    hooks = [layer.register_forward_pre_hook(note_layer, with_kwargs=True) for layer in model.model.layers]
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        ids = torch.arange(_TOKENS, device=model.device)[None]
        with torch.inference_mode():
            model(input_ids=ids, position_ids=ids, use_cache=False, logits_to_keep=1, **{NAME: probe})
    finally:
        model.config._attn_implementation = before
        for hook in hooks:
            hook.remove()
    return probe


def _reasons_of_calls(probe: Probe, model: Any) -> Iterator[str]:
    """What calls of the attention function ask for, that the engine does not compute."""
    from hyperscale.engines.attention_arguments import check_attention_arguments

    config, layers = model.config, len(model.model.layers)
    if [getattr(call.module, "layer_idx", None) for call in probe.calls] != list(range(layers)):
        yield "layers that do not call attention once each, in their order"
        return
    if not all(probe.rotated):
        yield "layers that are not handed position embeddings"
    heads, kv_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    wanted = tuple((1, count, _TOKENS, size) for count in (heads, kv_heads, kv_heads))
    if any(tuple(tuple(each.shape) for each in (call.query, call.key, call.value)) != wanted for call in probe.calls):
        yield "heads of other numbers or sizes than config.json says (num_key_value_heads, head_dim)"
    if any(call.mask is not None for call in probe.calls):
        yield "a mask of its own"
    if not all(isinstance(call.arguments.get("scaling"), float | int) for call in probe.calls):
        yield "no fixed factor on attention scores"
    for call in probe.calls:
        rest = {key: value for key, value in call.arguments.items() if key != "scaling"}
        try:
            check_attention_arguments(call.module, rest)
        except ModelError as error:
            yield str(error).partition("their ")[2].partition(", which")[0]
            return
