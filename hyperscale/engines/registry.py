"""Names of the engines, and which of them runs a method.

A new engine is a package with a provider (`hyperscale.engines.provider`) and one line in `PROVIDERS`.
"""

from collections.abc import Sequence
from functools import cache
from importlib import import_module

from hyperscale.engines.provider import EngineProvider
from hyperscale.errors import ConfigError
from hyperscale.methods.names import needed_engine

PROVIDERS = {
    "torch": "hyperscale.engines.torch.provider:TorchProvider",
    "kvpress": "hyperscale.engines.kvpress.provider:KVPressProvider",
    "vllm": "hyperscale.engines.vllm.harness.provider:VllmProvider",
}
"""Where each engine's provider is; imported when it is asked for."""
REFERENCE = "torch"
"""The engine that the others are held against; it runs every method."""
AUTO = "auto"
"""In place of an engine's name: a run chooses (`hyperscale.run.config.engine_choice`)."""


def get(name: str) -> EngineProvider:
    """The provider of an engine.

    Raises:
        ConfigError: There is no engine of this name.
    """
    if name not in PROVIDERS:
        raise ConfigError(f"unknown engine {name!r}: choose one of {', '.join(available())}")
    return _load(PROVIDERS[name])


@cache  # one provider an engine: methods of a run are grouped by it
def _load(path: str) -> EngineProvider:
    module, _, attribute = path.partition(":")
    provider: type[EngineProvider] = getattr(import_module(module), attribute)
    return provider()


def available() -> list[str]:
    """Names that ``--engine`` takes."""
    return [name for name, path in PROVIDERS.items() if _load(path).stands_in_for is None]


def gpu_settings() -> dict[str, str]:
    """Settings that a single engine reads, and on a GPU alone, with the engine's name."""
    return {setting: name for name, path in PROVIDERS.items() for setting in _load(path).gpu_settings}


def choose(engine: str, method: str) -> EngineProvider:
    """The provider of what runs a method in a run with an engine.

    It is the engine's own, unless the method needs another engine that stands in for it. Whether that provider runs the
    method is for its `check` to say.

    Raises:
        ConfigError: There is no engine of this name.
    """
    only_engine = needed_engine(method)
    if only_engine is not None and get(only_engine).stands_in_for == engine:
        return get(only_engine)
    return get(engine)


def assign(engine: str, methods: Sequence[str]) -> dict[EngineProvider, list[str]]:
    """The methods of a run by the provider that runs them, in the order given.

    Raises:
        ConfigError: There is no engine of this name.
    """
    groups: dict[EngineProvider, list[str]] = {}
    for method in methods:
        groups.setdefault(choose(engine, method), []).append(method)
    return groups
