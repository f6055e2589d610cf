"""Draws tokens inside vLLM with the harness's own noise, on the CPU, so that chains are those of the torch engine.

vLLM's seeded requests fail on the CPU where prompts are prefilled in chunks. So requests are greedy to vLLM, and a
logits processor leaves it one token to choose: the one that `hyperscale.engines.sampling` draws with the noise of
(seed, problem, chain, step), whatever the batch, and also where a preempted request goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from hyperscale.engines.base import Sampling
from hyperscale.engines.sampling import draw_tokens, mark_tokens
from hyperscale.engines.vllm.options import SAMPLING_ARGS


class HarnessSampler(AdapterLogitsProcessor):
    """See the module."""

    def is_argmax_invariant(self) -> bool:
        """It decides what the most probable token is."""
        return False

    def new_req_logits_processor(self, params: Any) -> Callable[[Sequence[int], Sequence[int], Tensor], Tensor] | None:
        """The processor of a request; None for one that brings no settings."""
        settings: Mapping[str, Any] | None = (params.extra_args or {}).get(SAMPLING_ARGS)
        if settings is None:
            return None
        sampling = Sampling(**settings["sampling"])
        key = torch.tensor([settings["key"]])
        return partial(_mask_all_but_drawn, sampling, key, settings["first"], settings["vocabulary"])


def _mask_all_but_drawn(
    sampling: Sampling,
    key: Tensor,
    first: int,
    vocabulary: int,
    prompt_ids: Sequence[int],
    token_ids: Sequence[int],
    logits: Tensor,
) -> Tensor:
    """Logits with the drawn token alone above minus infinity.

    Args:
        sampling: What shapes the distribution.
        key: (1,) int64, the chain's noise key.
        first: Tokens that the chain had when the request began; they are the prompt's last.
        vocabulary: Rows up to the last token.
        prompt_ids: The prompt.
        token_ids: The tokens so far.
        logits: (rows of the output layer,), at minus infinity where no token is (`Options.unused`).
    """
    present = None
    if sampling.repetition_penalty != 1:
        present = torch.zeros(1, vocabulary + 1, dtype=torch.bool)
        mark_tokens(present, torch.tensor([[*prompt_ids, *token_ids]]))
        present = present[:, :vocabulary]
    token, _ = draw_tokens(logits[None, :vocabulary], key, torch.tensor([first + len(token_ids)]), sampling, present)
    one_token_logits = torch.full_like(logits, float("-inf"))
    one_token_logits[token] = 0.0
    return one_token_logits
