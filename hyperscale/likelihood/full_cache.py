"""What a model predicts with its full cache: the reference that compressed caches are held against.

All tokens of a document go through the model at once, as transformers runs it: with a full cache that is what token by
token gives, but for rounding. Only the last layer's outputs are kept, (tokens, hidden) a document, and the output layer
is applied again where a distribution over the vocabulary is needed: the distributions of long documents fill no memory.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hyperscale.errors import ModelError
from hyperscale.likelihood.documents import Document

_BLOCK = 256  # positions whose distributions are held at once
_TOLERANCE = 1e-2  # of logits, relative to their largest: bfloat16 rounds products of other shapes otherwise


class FullCache:
    """Predictions of a model with its full cache.

    Attributes:
        hidden: (documents, tokens, hidden) outputs of the last layer, in the model's type, on the host.
        nats: (documents, tokens - 1) float64, minus the log-probability of each token but the first.
        vocabulary: Rows of the output layer.
    """

    def __init__(self, model: Any, documents: Sequence[Document]) -> None:
        """Predict all documents.

        Args:
            model: A transformers causal LM.
            documents: All of one length.

        Raises:
            ModelError: The model makes logits otherwise than by its output layer, or they are not numbers.
        """
        self._layer, self._device = model.lm_head, model.device
        self._divisor = float(getattr(model.config, "logits_scaling", 1.0))
        self.vocabulary = int(model.lm_head.weight.shape[0])
        hidden, nats = [], []
        for number, document in enumerate(documents):
            with torch.inference_mode():
                ids = torch.tensor([document.ids], device=self._device)
                if number == 0:
                    self._check(model, ids)
                outputs = model.model(input_ids=ids, use_cache=False).last_hidden_state[0]
                nats.append(self._score(outputs, ids[0]))
                hidden.append(outputs.to("cpu"))
        self.hidden, self.nats = torch.stack(hidden), torch.stack(nats)
        if not bool(self.nats.isfinite().all()):
            raise ModelError(
                "the model's output is not a number: use --dtype bfloat16 or float32; or its weights are broken"
            )

    def logits(self, hidden: Tensor) -> Tensor:
        """(any, vocabulary) of (any, hidden)."""
        logits: Tensor = self._layer(hidden) / self._divisor
        return logits

    def _score(self, outputs: Tensor, ids: Tensor) -> Tensor:
        """(tokens - 1,) float64 on the host."""
        parts = []
        for start in range(0, len(ids) - 1, _BLOCK):
            targets = ids[start + 1 : start + 1 + _BLOCK]
            logits = self.logits(outputs[start : start + len(targets)]).float()
            parts.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none").double())
        return torch.cat(parts).cpu()

    def _check(self, model: Any, ids: Tensor) -> None:
        """Refuse a model whose logits are not those of its output layer."""
        few = ids[:, :8]
        ours = self.logits(model.model(input_ids=few, use_cache=False).last_hidden_state[0]).float()
        theirs = model(input_ids=few, use_cache=False).logits[0].float()
        if not torch.allclose(ours, theirs, atol=_TOLERANCE * float(theirs.abs().max()), rtol=0):
            raise ModelError(
                f"the family {model.config.model_type} changes its logits behind the output layer, which likelihood "
                "under compression does not follow: choose another model"
            )
