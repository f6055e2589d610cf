"""Runs a model under a press of kvpress, and counts what each step attends to and holds.

The model runs as transformers wrote it, with kvpress's hooks on its attention modules. Entries are counted where the
attention happens, from the keys that it is given and the mask that the press has set on the module.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from hyperscale.engines.attention_arguments import check_attention_arguments
from hyperscale.errors import EngineError, first_line
from hyperscale.methods.kvpress import press_tree
from hyperscale.utils import counter_rng

_NAME = "hyperscale_kvpress"


@dataclass(frozen=True)
class SessionSnapshot:
    """A session at one moment: cache, masks, press and position."""

    layers: list[tuple[Tensor, Tensor]]
    masks: list[Any]
    press: dict[str, Any]
    position: int


class PressSession:
    """The cache of one chain and the press that works on it.

    Attributes:
        position: Tokens processed so far.
        entries_read: Entries attended to in the last decode step, own entry included, summed over layers and KV heads.
        entries_held: Entries in the cache during the last step, masked ones included; after the prefill, what the press
            left.
    """

    def __init__(self, model: Any, press: Any, key: int, label: str) -> None:
        """Prepare an empty cache.

        Args:
            model: A transformers causal LM.
            press: A fresh press.
            key: Noise key of the chain.
            label: Name of the method, for errors.
        """
        from transformers import DynamicCache

        self._model, self._press, self._key, self._label = model, press, key, label
        self._attentions = [layer.self_attn for layer in model.model.layers]
        self._cache = DynamicCache()
        self.position = self.entries_read = self.entries_held = 0

    @contextmanager
    def open(self) -> Iterator[None]:
        """Hook the press to the model within the block, and leave the model and torch's noise as they were."""
        config = self._model.config
        before = config._attn_implementation
        _register()
        # kvpress calls the press's own hook after each attention layer: its errors become ours.
        hook = self._press.forward_hook
        self._press.forward_hook = partial(self.call_kvpress, hook)
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        hooks = self._press(self._model)
        # Presses draw from torch's global generators, which are restored at the end.
        with torch.random.fork_rng(devices=devices):
            self.call_kvpress(hooks.__enter__)
            config._attn_implementation = _NAME
            try:
                yield
            finally:
                config._attn_implementation = before
                hooks.__exit__(None, None, None)
                # kvpress leaves its masks on the modules.
                for attention in self._attentions:
                    attention.masked_key_indices = None

    def forward(self, ids: list[int]) -> Tensor:
        """Process a prompt, or the next token of a chain.

        Returns:
            Logits of the last token, (1, vocabulary).
        """
        device = self._model.device
        # A press that draws at random draws the same for the same chain and step.
        torch.manual_seed(counter_rng.key("kvpress", self._key, self.position))
        positions = torch.arange(self.position, self.position + len(ids), device=device)
        self.entries_read = self.entries_held = 0  # summed by `count_entries`, layer by layer
        # kvpress reads cache_position, which transformers hands to the attention only if it is given (from 5.3 on).
        output = self._model(
            input_ids=torch.tensor([ids], device=device),
            position_ids=positions[None],
            cache_position=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
            **{_NAME: self},
        )
        if self.position == 0:  # a prefill: its reads do not count, and only what the press left is held
            self.entries_held = sum(layer.keys.shape[1] * layer.keys.shape[2] for layer in self._cache.layers)
        self.position += len(ids)
        logits: Tensor = output.logits[:, -1]
        return logits

    def count_entries(self, module: nn.Module, keys: Tensor) -> None:
        """Count what a decode step attends to in one layer, of keys (1, kv_heads, entries, head_dim)."""
        if self.position == 0:
            return
        entries = keys.shape[1] * keys.shape[2]
        self.entries_held += entries
        self.entries_read += entries - _count_masked(module.masked_key_indices, keys)

    def take_snapshot(self) -> SessionSnapshot:
        """Copy all that is needed to go on from here later."""
        layers = [(layer.keys.clone(), layer.values.clone()) for layer in self._cache.layers]
        masks = [attention.masked_key_indices for attention in self._attentions]
        return SessionSnapshot(layers, masks, deepcopy(self._press.__dict__), self.position)

    def restore(self, snapshot: SessionSnapshot) -> None:
        """Go back to where the chain was; a snapshot can be restored once, as its tensors become the cache's."""
        for layer, (keys, values) in zip(self._cache.layers, snapshot.layers, strict=True):
            layer.keys, layer.values = keys, values
        for attention, mask in zip(self._attentions, snapshot.masks, strict=True):
            attention.masked_key_indices = mask
        self._press.__dict__.update(snapshot.press)
        self.position = snapshot.position

    def call_kvpress(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call kvpress, whose presses have checks of their own.

        Raises:
            EngineError: It cannot work on this model.
        """
        try:
            return call(*args, **kwargs)
        except (MemoryError, torch.OutOfMemoryError):  # a run says what to do about these
            raise
        except Exception as error:
            raise EngineError(f"{self._label} does not work here: kvpress says: {first_line(error)}") from error


def _count_masked(indices: Any, keys: Tensor) -> int:
    """How many entries a press has masked, given their indices on the first three axes of keys, or None."""
    if indices is None:
        return 0
    mask = torch.zeros(keys.shape[:3], dtype=torch.bool)
    mask[tuple(torch.as_tensor(part).cpu() for part in indices)] = True
    return int(mask.sum())


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> Any:
    """Attention as kvpress wants it, with masked keys, after counting."""
    session: PressSession = kwargs.pop(_NAME)
    # The scale is left to transformers' own function, which is called below.
    check_attention_arguments(module, {name: kwargs[name] for name in kwargs if name != "scaling"})
    session.count_entries(module, key)
    return session.call_kvpress(_sdpa_with_masks(), module, query, key, value, attention_mask, dropout, **kwargs)


@cache
def _sdpa_with_masks() -> Any:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return press_tree.package().attention_patch.attention_patch(sdpa_attention_forward)


def _register() -> None:
    """Make our attention known to transformers, which builds no mask for this name: one chain needs none."""
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attention)
