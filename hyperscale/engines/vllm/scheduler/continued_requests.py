"""Requests that go on behind tokens which a chain has already: how much of them vLLM schedules at once.

A client may send a prompt with the first tokens of its chain behind it, and say in ``kv_transfer_params`` where the
prompt ends. The cache then has to become what it was when the chain had those tokens. The prompt is processed as
prompts are. What follows is processed as vLLM does after a preemption, in chunks; methods with a state of their own
decide step by step, so there it is one token a step.

vLLM has no setting for that. But it asks a request how many tokens there are to process, and that is answered here.
"""

from functools import cache
from typing import Any


def continue_behind(request: Any, prompt_tokens: int, stepwise: bool) -> None:
    """Let vLLM process a request's first tokens as a prompt and those behind them as what followed.

    Args:
        request: vLLM's ``Request``, which has not been scheduled.
        prompt_tokens: P.
        stepwise: Whether the tokens behind the prompt are processed one at a time.
    """
    request.hyperscale_prompt_tokens = prompt_tokens
    request.hyperscale_stepwise = stepwise
    request.__class__ = _continued_request()


@cache
def _continued_request() -> Any:
    """A subclass of vLLM's ``Request`` that shows its tokens bit by bit."""
    from vllm.v1.request import Request, RequestStatus

    class ContinuedRequest(Request):  # type: ignore[misc, unused-ignore]
        """See the module."""

        hyperscale_prompt_tokens: int
        hyperscale_stepwise: bool

        def _count_visible(self, computed_tokens: int, tokens: int) -> int:
            """Tokens up to which the next step may process."""
            if computed_tokens < self.hyperscale_prompt_tokens:
                return min(self.hyperscale_prompt_tokens, tokens)
            return min(computed_tokens + 1, tokens) if self.hyperscale_stepwise else tokens

        @property
        def num_tokens(self) -> int:
            """All of its tokens; while it waits to be admitted, those of its first step."""
            tokens = int(super().num_tokens)
            waits = self.status in (RequestStatus.WAITING, RequestStatus.PREEMPTED)
            return self._count_visible(self.num_computed_tokens, tokens) if waits else tokens

        @property
        def num_tokens_with_spec(self) -> int:
            """By this vLLM counts what a running request lacks."""
            return self._count_visible(self.num_computed_tokens, int(super().num_tokens_with_spec))

    return ContinuedRequest
