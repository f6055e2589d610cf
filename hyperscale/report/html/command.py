"""Writes the command that made a run, from the settings that its ``run.json`` holds."""

import json
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from hyperscale.scoring.voting import strategies

# Settings whose options have other names, and those that one option a value sets.
_OPTIONS = {"methods": "method", "crs": "cr", "tasks": "task", "lengths": "length", "seeds": "seed"}
_NESTED = {"params": "method-param", "task_params": "task-param", "template_args": "template-arg"}
# What a run has without the option: `hyperscale.run.config.schema`, which this package stands below.
_DEFAULTS: dict[str, Any] = {
    "methods": ["vanilla"],
    "axis": "kv_reads",
    "seeds": [0],
    "kv_dtype": "auto",
    "extend": 0,
    "extend_word": "Wait",
    "force_answer": 0,
    "predict": "auto",
}
_CHOSEN = "set for this run"  # the source of a sampling setting that the user gave
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def write_command(info: Mapping[str, Any]) -> str:
    """The command, as a shell reads it; its settings are those that decide the chains, defaults left out.

    Args:
        info: Contents of ``run.json``.
    """
    config = info["config"]
    sources = info.get("sampling_sources") or {}
    words = ["hyperscale", "run"]
    for name, value in config.items():
        if value is None or value == [] or value == {} or _DEFAULTS.get(name) == value:
            continue
        if name in _SAMPLING and sources.get(name, _CHOSEN) != _CHOSEN:  # the model's own, which a rerun finds again
            continue
        if name in _NESTED:
            words += [word for pair in _pairs(name, value) for word in (f"--{_NESTED[name]}", pair)]
            continue
        if name == "chat_template":  # a file's place says nothing elsewhere, and is nobody's business
            value = PurePath(value).name
        text = ",".join(map(_text, value)) if isinstance(value, list) else _text(value)
        words += [f"--{_OPTIONS.get(name, name.replace('_', '-'))}", text]
    # A reward model scores finished chains, by `hyperscale score` afterwards: a run refuses such a vote.
    vote = info.get("vote")
    if vote and strategies.get(vote).scorer in (None, strategies.LOGPROB):
        words += ["--vote", vote]
    return " ".join(map(shlex.quote, map(str, words)))


def _pairs(setting: str, values: Mapping[str, Any]) -> list[str]:
    """What the option of a setting in `_NESTED` takes: ``a.b=value``; ``a=value`` of a template's arguments."""
    if setting == "template_args":
        return [f"{name}={_json(value)}" for name, value in values.items()]
    # Lists, as of budgets in tokens, have commas there: JSON's brackets would be part of a text.
    return [
        f"{name}.{parameter}={','.join(map(_json, value)) if isinstance(value, list) else _json(value)}"
        for name, parameters in values.items()
        for parameter, value in parameters.items()
    ]


def _json(value: Any) -> str:
    """A value as JSON, but for texts, which stand without quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def _text(value: Any) -> str:
    """A value with all its digits, which decide the chains: 8 for 8.0, 2.6666666666666665."""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)
