"""The methods that one engine runs in turn, its arms: how their options reach vLLM, and which of them are compiled.

They stand in ``additional_config`` as ``{"hyperscale": {..., "arms": [{...}, {...}]}}``: each is a whole set of
options, the first is what the engine starts with. Without ``arms`` the options themselves are the only arm. A request
says by number which arm it is for (``arm`` in its ``kv_transfer_params``); the workers are told between two arms
(`hyperscale.engines.vllm.plugin.arm_switch`).
"""

import hashlib
import json
from collections import UserDict
from collections.abc import Mapping
from typing import Any

from hyperscale.engines.vllm.options import ARMS, KEY, Options
from hyperscale.errors import EngineError


def read_arms(additional: Any, model_config: Any) -> tuple[Options, ...]:
    """The options of every arm of an engine.

    Args:
        additional: vLLM's ``additional_config``.
        model_config: The transformers configuration of the checkpoint.

    Raises:
        EngineError: An option is unknown, out of range or missing.
    """
    first = Options.read(additional, model_config)
    values = additional.get(KEY, {}) if isinstance(additional, Mapping) else {}
    arms = values.get(ARMS)
    if arms is None:
        return (first,)
    if not isinstance(arms, list | tuple) or not arms:
        raise EngineError(f"additional_config.{KEY}.{ARMS} must be a list of options, not {arms!r}")
    return tuple(Options.read({KEY: arm}, model_config) for arm in arms)


class ArmsConfig(UserDict[str, Any]):
    """``additional_config`` with the hash that vLLM finds compiled code by.

    Of a plain dict vLLM takes all of it, so that another CR, or one more arm, would be compiled anew.
    """

    def compute_hash(self) -> str:
        """A hash of the options that the compiled part of the model depends on.

        That part lies between the attention layers: it has the gates of DMS, and the hash that stands in for them in
        measurements. What is evicted is decided outside of it.
        """
        values = self.data.get(KEY, {})
        method = values.get("method", "dms")
        compiled = {
            "gates": method in ("dms", "dmc") and method,
            "hashed": values.get("cr") if method == "hashed" else None,
        }
        return hashlib.sha256(json.dumps(compiled, sort_keys=True).encode()).hexdigest()
