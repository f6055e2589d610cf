"""Tries a loaded model of a family that no test holds: a few tokens with a full cache, against transformers.

`hyperscale.engines.families.needs` has seen what the family's class asks for. The trial is the proof on the model
itself, token by token through the cache.
"""

from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.families.names import FAMILIES
from hyperscale.engines.torch import forward_pass
from hyperscale.engines.torch.batch import Batch
from hyperscale.errors import HyperscaleError, ModelError, first_line
from hyperscale.methods.vanilla import Vanilla

_PROMPT, _FORCED = 16, 8  # tokens
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}  # of logits, relative to their largest
_HALF_TOLERANCE = 5e-2  # in bfloat16 and float16, whose products of other shapes round otherwise
_tried: WeakSet[nn.Module] = WeakSet()


def try_model(model: Any, tokenizer: Any, device: torch.device) -> None:
    """Hold the logits of some tokens against transformers' own, once for each loaded model.

    Args:
        model: A transformers causal LM after `forward_pass.install_hooks`.
        tokenizer: Its tokenizer.
        device: Where the model is.

    Raises:
        ModelError: They differ, or the model's class fails.
    """
    if model.config.model_type in FAMILIES or model in _tried:
        return
    # Spread over the vocabulary, and the same in every run.
    ids = tuple(index * 7919 % model.config.vocab_size for index in range(1, _PROMPT + _FORCED + 1))
    try:
        ours, wanted = _logits(model, tokenizer, ids, device)
    except (HyperscaleError, MemoryError, torch.OutOfMemoryError):  # a run says what to do about memory
        raise
    except Exception as error:  # a class may let pass without weights what it then fails at, such as masks
        raise ModelError(
            f"models of type {model.config.model_type!r} do not run here: transformers' class fails on "
            f"{len(ids)} tokens: {first_line(error)}"
        ) from error
    difference = float((ours - wanted[:, : ours.shape[1]]).abs().max() / wanted.abs().max())
    if not difference <= _TOLERANCE.get(model.dtype, _HALF_TOLERANCE):
        raise ModelError(
            f"models of type {model.config.model_type!r} do not run here: with a full cache the logits of the torch "
            f"engine differ from those of transformers by {difference:.1%} of the largest"
        )
    _tried.add(model)


def _logits(model: Any, tokenizer: Any, ids: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Those that predict the last tokens: by the engine with a full cache, and by transformers without one."""
    found: list[Tensor] = []

    def observe(_requests: Sequence[tuple[Request, int]], logits: Tensor) -> None:
        found.append(logits[0].float())

    request = Request("trial", 0, ids[:_PROMPT], _FORCED, forced_ids=ids[_PROMPT:])
    batch = Batch(
        model, tokenizer, Vanilla(cr=1), Sampling(temperature=0), max_chains=1, device=device, observe_logits=observe
    )
    queue = iter([request])
    with torch.inference_mode():
        with forward_pass.use_own_attention(model):
            while batch.advance(queue) is not None:
                pass
        wanted = model(torch.tensor([ids], device=device), use_cache=False).logits[0, _PROMPT - 1 : -1].float()
    return torch.stack(found), wanted
