"""The settings of a run: declared in `schema`, read by `load` from options and YAML, completed by `resolve`."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.run.config.load import load_config as load_config
    from hyperscale.run.config.load import make_config as make_config
    from hyperscale.run.config.resolve import ResolvedConfig as ResolvedConfig
    from hyperscale.run.config.resolve import resolve_config as resolve_config
    from hyperscale.run.config.schema import RunConfig as RunConfig

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "load": ["load_config", "make_config"],
        "resolve": ["ResolvedConfig", "resolve_config"],
        "schema": ["RunConfig"],
    },
)
