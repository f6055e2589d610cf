"""Makes a model with low-rank updates a plain one for as long as it is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import nn

from hyperscale.retrofit.low_rank.updates import find_updated


@contextmanager
def merge_updates(model: Any) -> Iterator[None]:
    """Within it, each updated projection is a linear layer of the merged weights; afterwards it is what it was.

    The weights of the base are copied, not merged in place: taking the update out again would leave them rounded, and
    they teach. A model without updates is left alone.

    Args:
        model: A transformers causal LM.
    """
    updated = find_updated(model)
    for name, layer in updated:
        _put(model, name, _merged(layer))
    try:
        yield
    finally:
        for name, layer in updated:
            _put(model, name, layer)


def _merged(layer: Any) -> nn.Linear:
    base: nn.Linear = layer.get_base_layer()
    merged = copy(base)
    # Its own parameters: those of the base stay where they are.
    merged._parameters = dict(base._parameters)
    with torch.no_grad():
        # Summed in float32, so that only the sum is rounded.
        weight = base.weight.float() + layer.get_delta_weight(*layer.active_adapters).float()
    merged.weight = nn.Parameter(weight.to(base.weight.dtype), requires_grad=False)
    return merged


def _put(model: Any, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
