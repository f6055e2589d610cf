"""Trains the base of the built-in model: its data and its loop."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.mini.training.data import make_batch as make_batch
    from hyperscale.mini.training.data import stream as stream
    from hyperscale.mini.training.pretrain import train as train

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "data": ["make_batch", "stream"],
        "pretrain": ["train"],
    },
)
