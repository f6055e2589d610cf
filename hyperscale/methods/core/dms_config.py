"""Reads what a checkpoint says of its DMS gates: ``dms_*`` keys of ``config.json``, and the files that FastDMS adds.

Two formats are in use. They differ in which hidden state decides on a token, and in where a borrowed neuron is zeroed::

    format     verdict on token i from   borrowed neuron is 0     recognised by
    nvidia     hidden state i + 1        before and after RoPE    dms_* keys alone
    fastdms    hidden state i            before RoPE              dms_metadata.json, training_log.json, or
                                                                  dms_alpha_offset or dms_target_cr in config.json

Keys that say so themselves (``dms_decision_offset``, ``dms_neuron_zeroing``) come before what the format implies. A key
that is missing has the value that the format's own reader gives it.

Sources: github.com/NVIDIA/Model-Optimizer, experimental/dms (``configuration_qwen3_dms.py``, ``core.py``), and
github.com/shisa-ai/FastDMS (``fastdms/engine/dms.py``). FastDMS's trainer does not zero the neuron at all, its engine
does before RoPE; what is run is the engine.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from hyperscale.errors import ModelError, first_line

Format = Literal["nvidia", "fastdms"]
NeuronZeroing = Literal["before_and_after_rope", "before_rope", "never"]

FORMATS: tuple[Format, ...] = get_args(Format)
METADATA, TRAINING_LOG = "dms_metadata.json", "training_log.json"
"""Files of FastDMS beside the weights; its trainer leaves the log in the folder above."""

_OFFSETS: dict[Format, int] = {"nvidia": 1, "fastdms": 0}
_ZEROING: dict[Format, NeuronZeroing] = {"nvidia": "before_and_after_rope", "fastdms": "before_rope"}
_WINDOWS: dict[Format, int] = {"nvidia": 512, "fastdms": 256}
"""Windows that the readers of the two formats take where the checkpoint names none."""
_DEFAULT_CR = 8.0

Rule = tuple[Callable[[Any], bool], str]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_MOST_TOKENS = 2**31


def _whole(least: int) -> Rule:
    return (
        lambda value: _is_number(value) and value == int(value) and least <= value < _MOST_TOKENS,
        f"a whole number of at least {least}, below 2^31",
    )


def _choice(*values: str) -> Rule:
    return lambda value: isinstance(value, str) and value in values, " or ".join(f'"{value}"' for value in values)


_BOOL: Rule = (lambda value: isinstance(value, bool), "true or false")
_NUMBER: Rule = (_is_number, "a number")
_RATIO: Rule = (lambda value: _is_number(value) and value >= 1, "a number of at least 1")

_RULES: dict[str, Rule] = {
    "dms_window_size": _whole(0),
    "dms_alpha_scale": (lambda value: _is_number(value) and value != 0, "a number other than 0"),
    "dms_initial_alpha_offset": _NUMBER,
    "dms_alpha_offset": _NUMBER,
    "dms_tau": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "dms_cr": _RATIO,
    "dms_target_cr": _RATIO,
    "dms_separate_alpha": _BOOL,
    "dms_alpha_per": _choice("head", "layer"),
    "dms_disable_eviction": _BOOL,
    "dms_window_implied": _BOOL,
    "dms_decision_offset": _whole(0),
    "dms_neuron_zeroing": _choice(*get_args(NeuronZeroing)),
}
"""Keys that decide something here, each with what it may be."""

_WITHOUT_EFFECT = (
    "dms_paged_attention_block_size",
    "dms_compile_limit",
    "dms_manual_inference_mode",
    "dms_chunked_prefill",
    "dms_preallocate_for_tokens",
    "dms_context_len",
    "dms_compression_mode",
)
"""Known keys that concern the memory and the speed of other readers, or are remarks."""

_METADATA_KEYS = {
    "window_size": "dms_window_size",
    "alpha_scale": "dms_alpha_scale",
    "alpha_offset": "dms_alpha_offset",
    "target_cr": "dms_target_cr",
}
"""Keys of FastDMS's files, and those of ``config.json`` that mean the same."""


@dataclass(frozen=True)
class GateConfig:
    """Settings of the gate, as kept in a checkpoint's ``config.json``.

    Attributes:
        window: w, the number of younger keys after which a verdict takes effect: key k is visible to query q while
            q - k <= w; a flagged key is gone from q = k + w + 1 on.
        alpha_scale: Factor on the projection's output, or on the neuron.
        initial_offset: Subtracted from the scaled output, so that an untrained gate evicts nothing.
        tau: Temperature of the Gumbel-sigmoid in training.
        cr: Nominal compression ratio the checkpoint was trained to.
        separate: Whether the gate has a projection of its own; otherwise it borrows a neuron.
        per: Whether each KV head has its own verdict, or all of a layer share that of its first ("layer").
        decision_offset: d: the verdict on token i comes from hidden state i + d; 1 in NVIDIA's format, 0 in FastDMS's,
            w + 1 where a token is decided on as it leaves the window ("immediate eviction"), at most that.
        zeroing: When attention sees a borrowed neuron as 0.
        disabled: Whether the checkpoint asks for no eviction at all; a borrowed neuron is hidden all the same.
        window_implied: Whether the checkpoint states no window, so that it is the format's.
    """

    window: int = 256
    alpha_scale: float = 100.0
    initial_offset: float = 5.0
    tau: float = 0.1
    cr: float = 1.0
    separate: bool = True
    per: Literal["head", "layer"] = "head"
    decision_offset: int = 1
    zeroing: NeuronZeroing = "before_and_after_rope"
    disabled: bool = False
    window_implied: bool = field(default=False, compare=False)  # it decides nothing by itself

    @classmethod
    def from_hf(cls, config: Any) -> "GateConfig":
        """Read the ``dms_*`` keys of a transformers configuration.

        Raises:
            ModelError: The configuration has no DMS keys, or one that makes no sense.
        """
        folder = str(getattr(config, "name_or_path", "") or "")
        gate = read_gate(vars(config), place=f"{folder}/config.json" if folder else "config.json")
        if gate is None:
            raise ModelError("the checkpoint has no dms_* keys in config.json: it was not retrofitted with DMS")
        return gate

    @property
    def format(self) -> Format:
        """The format whose reader decides as this gate does."""
        return "fastdms" if self.decision_offset == _OFFSETS["fastdms"] else "nvidia"

    @property
    def immediate(self) -> "GateConfig":
        """The same gate, deciding on a token as it leaves the window."""
        return replace(self, decision_offset=self.window + 1)

    def in_format(self, form: Format) -> "GateConfig":
        """The same gate, deciding as in a format, in that format's window where the checkpoint states none."""
        window = _WINDOWS[form] if self.window_implied else self.window
        return replace(self, decision_offset=_OFFSETS[form], zeroing=_ZEROING[form], window=window)

    def to_hf(self) -> dict[str, Any]:
        """The ``dms_*`` keys to write into a checkpoint's configuration."""
        keys: dict[str, Any] = {
            "dms_window_size": self.window,
            "dms_alpha_scale": self.alpha_scale,
            "dms_initial_alpha_offset": self.initial_offset,
            "dms_tau": self.tau,
            "dms_cr": self.cr,
            "dms_separate_alpha": self.separate,
            "dms_alpha_per": self.per,
            "dms_decision_offset": self.decision_offset,
            "dms_neuron_zeroing": self.zeroing,
        }
        flags = {"dms_disable_eviction": self.disabled, "dms_window_implied": self.window_implied}
        return keys | {key: True for key, is_set in flags.items() if is_set}


def has_gates(config: Any) -> bool:
    """Whether a configuration, of transformers or as a mapping, is that of a checkpoint with DMS gates."""
    values = config if isinstance(config, Mapping) else vars(config)
    return any(values.get(key) is not None for key in (*_RULES, *_WITHOUT_EFFECT))


def unknown_keys(config: Mapping[str, Any]) -> list[str]:
    """Keys ``dms_*`` that mean nothing here, in order."""
    return sorted(key for key in config if key.startswith("dms_") and key not in (*_RULES, *_WITHOUT_EFFECT))


def read_gate(
    config: Mapping[str, Any], metadata: "Metadata | None" = None, place: str = "config.json"
) -> GateConfig | None:
    """The gate's settings that a checkpoint's files state.

    Args:
        config: Its ``config.json``; keys that are null count as missing.
        metadata: FastDMS's files, if it has any; they come before ``config.json``, as in FastDMS.
        place: Where the configuration is, for errors.

    Returns:
        The settings, or None if the checkpoint has no gates.

    Raises:
        ModelError: A value makes no sense; the message names key, file and what is allowed.
    """
    if metadata is None and not has_gates(config):
        return None
    values = {key: config[key] for key in _RULES if config.get(key) is not None}
    for key, value in values.items():
        _check(key, value, _RULES[key], place)
    if metadata is not None:
        values |= metadata.values
    is_fastdms = metadata is not None or "dms_alpha_offset" in values or "dms_target_cr" in values
    form: Format = "fastdms" if is_fastdms else "nvidia"
    default = GateConfig()
    window = int(values.get("dms_window_size", _WINDOWS[form]))
    latest: Rule = (lambda value: value <= max(1, window + 1), f"at most {max(1, window + 1)}, the window and 1")
    _check("dms_decision_offset", values.get("dms_decision_offset", 0), latest, place)
    return GateConfig(
        window=window,
        alpha_scale=float(values.get("dms_alpha_scale", default.alpha_scale)),
        initial_offset=float(
            values.get("dms_alpha_offset", values.get("dms_initial_alpha_offset", default.initial_offset))
        ),
        tau=float(values.get("dms_tau", default.tau)),
        cr=float(values.get("dms_target_cr", values.get("dms_cr", _DEFAULT_CR))),
        separate=values.get("dms_separate_alpha", False),
        per=values.get("dms_alpha_per", default.per),
        decision_offset=int(values.get("dms_decision_offset", _OFFSETS[form])),
        zeroing=values.get("dms_neuron_zeroing", _ZEROING[form]),
        disabled=values.get("dms_disable_eviction", False),
        window_implied="dms_window_size" not in values or values.get("dms_window_implied", False),
    )


@dataclass(frozen=True)
class Metadata:
    """What one of FastDMS's files says, under the keys of ``config.json``.

    Attributes:
        values: Its values, checked.
        path: The file.
    """

    values: Mapping[str, Any]
    path: str


def read_metadata(path: Path) -> Metadata | None:
    """Read ``dms_metadata.json``, or the log of FastDMS's trainer.

    Returns:
        None if it is a log of something else.

    Raises:
        ModelError: It cannot be read, or a value makes no sense.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path}, which says how DMS decides: {first_line(error)}") from None
    if not isinstance(contents, dict):
        if path.name == METADATA:
            raise ModelError(f"{path}, which says how DMS decides, is not a mapping of names to values")
        contents = {}
    inner = contents.get("config", contents)
    settings = inner if isinstance(inner, dict) else {}
    if path.name != METADATA and not {"window_size", "alpha_scale", "alpha_offset"} <= settings.keys():
        return None
    values = {}
    for name, key in _METADATA_KEYS.items():
        # FastDMS takes either spelling, and `dms_cr` and `dms_initial_alpha_offset` for lack of its own.
        spellings = [name, key, {"target_cr": "dms_cr", "alpha_offset": "dms_initial_alpha_offset"}.get(name, key)]
        for spelling in spellings:
            if settings.get(spelling) is not None:
                _check(spelling, settings[spelling], _RULES[key], str(path))
                values[key] = settings[spelling]
                break
    return Metadata(values, str(path))


def find_metadata(folder: Path) -> Metadata | None:
    """FastDMS's files of a local checkpoint: beside the weights, or where its trainer leaves them, one folder above.

    Raises:
        ModelError: See `read_metadata`.
    """
    candidates = [folder / METADATA, folder / TRAINING_LOG]
    if folder.name == "final" or folder.name.startswith("checkpoint-"):  # as the trainer names them
        candidates.append(folder.parent / TRAINING_LOG)
    for path in candidates:
        if path.is_file() and (found := read_metadata(path)) is not None:
            return found
    return None


def _check(key: str, value: Any, rule: Rule, place: str) -> None:
    holds, allowed = rule
    if not holds(value):
        raise ModelError(f"{key} in {place} is {json.dumps(value, default=str)}: it must be {allowed}")
