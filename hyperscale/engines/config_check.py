"""Refuses checkpoints whose configuration asks for what the engines do not compute, before any weights are read.

The engines replace a model's attention and trust its class for the rest. So a key of ``config.json`` that this class
does not read, or that one engine reads and another does not, would change tokens without a word. Families that no test
holds are admitted by what their classes need (`hyperscale.engines.families.needs`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from hyperscale.engines.families.names import FAMILIES
from hyperscale.engines.families.needs import check_class, check_settings, family_config
from hyperscale.errors import ModelError
from hyperscale.models.checkpoint import read_checkpoint_config
from hyperscale.models.context import rope_settings
from hyperscale.models.gate_files import complete_config, read_available_config
from hyperscale.utils.hub import load_config

_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Kinds of RoPE whose angles depend on a token's position alone, and that all engines compute alike."""
_LENGTH_DEPENDENT = ("dynamic", "longrope", "su")
"""Kinds whose angles depend on the longest sequence of a batch."""
_ROPE_KEYS = (
    "mrope_section",
    "xdrope_section",
    "mrope_interleaved",
    "rope_dim",
    "use_fope",
    "short_factor",
    "long_factor",
)
"""Keys of RoPE that belong to other kinds; vLLM goes by some of them, transformers by none."""
_ROPE_READ: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        "factor",
        "original_max_position_embeddings",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
        "beta_fast",
        "beta_slow",
        "truncate",
    ),
}
"""What transformers and vLLM read of each kind, besides `_ROPE_READ_ALWAYS`."""
_ROPE_READ_ALWAYS = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
_QUANTISATION = ("quantization_config", "compression_config")
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "qk_norm": (False,),
    "use_qk_norm": (False,),
    "is_causal": (True,),
    "use_bidirectional_attention": (False,),
    "dual_chunk_attention_config": (),
    "logit_scale": (1, 1.0),
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "attention_chunk_size": (),
    "bias": (False,),
    "clip_qkv": (),
}
"""Keys that change what a model computes, and that the classes of `FAMILIES` in transformers do not read (vLLM reads
some) or read for their masks alone; with these values, or null, they change nothing. Other families may declare some of
them in their configurations, and then their classes read them."""
_NORMS = ("qk_norm", "use_qk_norm")
"""Those of `_NEUTRAL` that ask for norms of queries and keys."""
_MASKS = ("is_causal", "use_bidirectional_attention", "attention_chunk_size", "dual_chunk_attention_config")
"""Those of `_NEUTRAL` that change which tokens are attended to, which the engines decide by themselves."""
_ONE_WINDOW = {"mistral": 4096, "phi3": None}
"""Families whose layers all have the window ``sliding_window``, if it is not null, with what a missing key means."""
_NO_WINDOW = ("llama", "gemma", "granite")
"""Families whose classes in transformers have no window."""


def load_supported_config(path: str) -> Any:
    """The transformers configuration of a checkpoint that the engines run, with every key of its gates if it has any.

    Args:
        path: A folder or a hub id.

    Raises:
        ModelError: It cannot be loaded, or is of a kind that does not run here.
    """
    # Before transformers sees it: what it does not know it would ask to run code for, or fail at in its own words.
    check_config(read_checkpoint_config(path))
    config = load_config(path)
    complete_config(config, path)
    return config


def rope_notes(paths: Iterable[str]) -> list[str]:
    """What some checkpoints ask of RoPE and nobody computes, a line each; nothing of those that are not at hand.

    Older code read such keys (``attn_factor`` of YaRN), so that published files have them.

    Args:
        paths: Folders and hub ids, whose configurations `check_config` lets in.

    Raises:
        ModelError: A configuration cannot be read.
    """
    notes = []
    for path in dict.fromkeys(paths):
        rope = rope_settings(read_available_config(path) or {})
        read = (*_ROPE_READ.get(rope.get("rope_type", "default"), ()), *_ROPE_READ_ALWAYS)
        unread = [f"{key} = {value!r}" for key, value in rope.items() if key not in read and value is not None]
        if unread:
            notes.append(
                f"the RoPE of {path} has keys in config.json that neither transformers nor vLLM reads, and that change "
                f"nothing here: {', '.join(unread)}"
            )
    return notes


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse what the engines do not compute.

    Args:
        config: The contents of a ``config.json``.

    Raises:
        ModelError: A family that needs what the engines do not compute, quantised weights, layers without full
            attention, a RoPE that depends on the batch, or a key that the family's class does not read though it
            changes what a model computes.
    """
    family = config.get("model_type")
    if not isinstance(family, str):
        raise ModelError(f"models of type {family!r} are not supported: config.json names no family in model_type")
    for key in _QUANTISATION:
        if config.get(key):
            raise ModelError(
                f"quantised weights ({_quantisation(config[key])}) do not run here: pass the original ones"
            )
    given, declared = config, dict[str, Any]()
    if family not in FAMILIES:
        complete = family_config(config)
        check_settings(family, complete)
        declared = family_config({"model_type": family}).to_dict()
        config = {**config, **complete.to_dict(), "model_type": family}
    else:
        _check_layers(config)
    _check_rope(config)
    for key, neutral in _NEUTRAL.items():
        value = config.get(key)
        if value is not None and value not in neutral and (key in _MASKS or key not in declared):
            if key in _NORMS and value is True and family not in FAMILIES and check_class(given):
                continue  # a class that always has them does not ask (Apertus)
            raise ModelError(
                f"{key} = {value!r} in config.json does not run here: models of type {family!r} have no such part"
            )
    if "qkv_bias" not in declared and config.get("qkv_bias") not in (None, bool(config.get("attention_bias", False))):
        raise ModelError(
            "qkv_bias in config.json does not run here: biases of queries, keys and values go with attention_bias"
        )
    if family not in FAMILIES:
        check_class(given)


def _quantisation(settings: Any) -> str:
    """The kind of quantisation, as a configuration names it."""
    keys = ("quant_method", "quant_algo", "format")
    names = [str(settings[key]) for key in keys if settings.get(key)] if isinstance(settings, Mapping) else []
    return names[0] if names else "of an unknown kind"


def _check_layers(config: Mapping[str, Any]) -> None:
    """Refuse layers that do not attend to all earlier tokens."""
    family = config.get("model_type")
    if family in _ONE_WINDOW:
        window = config.get("sliding_window", _ONE_WINDOW[str(family)])
        if window is not None:
            default = "" if "sliding_window" in config else f", which is what {family} takes where the key is missing"
            raise ModelError(
                f"models with sliding-window attention layers are not supported (sliding_window = {window!r} in "
                f"config.json{default}); null is full attention"
            )
    if "sliding_attention" in _layer_types(config):
        raise ModelError("models with sliding-window attention layers are not supported")
    others = sorted(set(map(str, _layer_types(config))) - {"full_attention"})
    if others:
        raise ModelError(
            f"models with layers of type {', '.join(others)} (layer_types in config.json) are not supported"
        )


def _layer_types(config: Mapping[str, Any]) -> list[Any]:
    """The kinds of a model's layers, as transformers derives them; only those that differ matter."""
    types = config.get("layer_types")
    if isinstance(types, list):
        return types
    if types is not None:
        raise ModelError(f"layer_types in config.json must be a list, not {types!r}")
    family = config.get("model_type")
    if family in _ONE_WINDOW:
        return []  # checked by itself
    # These classes have no window, so transformers would leave it out; vLLM would not.
    if family in _NO_WINDOW:
        return ["sliding_attention"] if config.get("sliding_window") is not None else []
    is_windowed = bool(config.get("use_sliding_window")) and config.get("sliding_window", 0) is not None
    if family == "smollm3":  # those without RoPE
        is_windowed = is_windowed and config.get("sliding_window") is not None
        return ["sliding_attention"] if is_windowed else []
    first = _number(config, "max_window_layers", 28)  # from this layer on
    return ["sliding_attention"] if is_windowed and first < _number(config, "num_hidden_layers", 32) else []


def _number(config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key, default)
    return value if isinstance(value, int) else default


def _check_rope(config: Mapping[str, Any]) -> None:
    """Refuse kinds of RoPE that depend on the batch, or that engines compute differently."""
    rope = rope_settings(config)
    if nested := [key for key in rope if key.endswith("_attention")]:
        raise ModelError(f"RoPE of its own for layers of one type ({nested[0]} in config.json) is not supported")
    kind = rope.get("rope_type", "default")
    if kind in _LENGTH_DEPENDENT:
        raise ModelError(
            f"RoPE of type {kind!r} in config.json does not run here: its angles depend on the longest sequence of the "
            "batch, and so would every chain; yarn, linear and llama3 run"
        )
    if kind == "mrope" or any(rope.get(key) for key in ("mrope_section", "xdrope_section")):
        raise ModelError("multimodal RoPE (mrope in config.json) does not run here: positions are those of text alone")
    if kind not in _ROPE_TYPES:
        raise ModelError(f"RoPE of type {kind!r} in config.json is not supported; supported: {', '.join(_ROPE_TYPES)}")
    if config.get("model_type") == "phi3" and kind != "default":
        # transformers takes yarn of this family for longrope, and knows no other.
        raise ModelError(f"RoPE of type {kind!r} in config.json is not supported for models of type 'phi3'")
    for key in _ROPE_KEYS:
        if rope.get(key):
            raise ModelError(f"{key} of RoPE in config.json is not supported with type {kind!r}")
    for source in (rope, config) if config.get("model_type") in FAMILIES else ():
        if source.get("partial_rotary_factor") not in (None, 1):
            raise ModelError(
                f"partial_rotary_factor = {source['partial_rotary_factor']} in config.json does not run here: RoPE "
                f"turns all of a head in models of type {config['model_type']!r}"
            )
    for source in (rope, config):
        theta = source.get("rope_theta")
        if theta is not None and (isinstance(theta, bool) or not isinstance(theta, int | float) or not theta > 0):
            raise ModelError(f"rope_theta in config.json must be a number above 0, not {theta!r}")
    if kind in ("linear", "llama3", "yarn") and not (
        isinstance(rope.get("factor"), int | float) and rope["factor"] >= 1
    ):
        raise ModelError(
            f"RoPE of type {kind!r} in config.json needs a factor of at least 1, not {rope.get('factor')!r}"
        )
