"""Draws the next token of every chain of a batch, and fetches all that the host has to know of a step at once.

What a draw depends on lies on the device, in tables with a column for each chain: its last token, the position of that,
the key of its noise, how many tokens it has, and, where repetitions are penalised, which tokens it has. So does what
the draw gives, and the next decode step starts from it there; the host gets one tensor a step, and waits for it once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyperscale.engines.base import Sampling
from hyperscale.engines.sampling import draw_tokens, mark_tokens, score_tokens
from hyperscale.engines.torch.static_step import StaticStep, padded_size, round_up
from hyperscale.engines.vocabulary import Vocabulary
from hyperscale.kv.cache import RaggedCache
from hyperscale.methods.core.base import DecodeStep, Method, State

# Rows of `TokenDraw._table`, which has a column for each chain.
_LAST_TOKEN, _POSITION, _NOISE_KEY, _TOKENS = range(4)


@dataclass(frozen=True)
class StepResult:
    """What a step gave, on the host, by chain.

    Attributes:
        tokens: Next tokens.
        read: Entries that the step read, over all rows of the chain.
        held: Entries that live after it, over all rows.
        logprobs: Log-probabilities of the tokens.
        greedy: Whether a forced token was the most probable one.
        full: (layers, rows), which rows of the chains that decoded have no free slot.
        prunable: Chains that the method prunes before the next step.
    """

    tokens: list[int]
    read: list[int]
    held: list[int]
    logprobs: list[float]
    greedy: list[bool]
    full: NDArray[np.bool_]
    prunable: list[int]


class TokenDraw:
    """The tables of a batch's chains that tokens are drawn from, and the draw.

    Chains have the numbers that they have in the batch.
    """

    def __init__(
        self, method: Method, state: State, cache: RaggedCache, sampling: Sampling, vocabulary: Vocabulary, rows: int
    ) -> None:
        """Tables of no chains.

        Args:
            method: The method.
            state: Its state, which says what is pruned.
            cache: The batch's cache, which says what a step read and holds.
            sampling: How tokens are drawn.
            vocabulary: Which tokens can be.
            rows: Chains that there is room for, padding included.
        """
        self._method, self._state, self._cache = method, state, cache
        self._sampling, self._vocabulary, self._device = sampling, vocabulary, cache.device
        # (4, rows): last token, its position, noise key, tokens generated. Columns past the chains are padding.
        self._table = torch.zeros(4, round_up(rows), dtype=torch.int64, device=self._device)
        # (1, rows, vocabulary + 1), see `mark_tokens`: which tokens each chain has, its prompt's included.
        self._present: Tensor | None = None
        if sampling.repetition_penalty != 1:
            self._present = torch.zeros(1, rows, vocabulary.rows + 1, dtype=torch.bool, device=self._device)
        # Of static steps, whose tensors never move.
        self._forced_ids = torch.zeros(rows, dtype=torch.int64, device=self._device)

    @property
    def tables(self) -> tuple[Tensor, ...]:
        """All that is kept of chains, (any, chains, …) with places for padding."""
        return (self._table,) if self._present is None else (self._table, self._present)

    @property
    def last_tokens(self) -> Tensor:
        """(chains,) int64, the token that each chain's next decode step processes, with places for padding."""
        return self._table[_LAST_TOKEN]

    @property
    def positions(self) -> Tensor:
        """(chains,) int64, the positions of these tokens."""
        return self._table[_POSITION]

    def step_of(self, count: int) -> DecodeStep:
        """The decode step of the first ``count`` chains, as the method sees it."""
        return DecodeStep(self._table[_POSITION, :count], self._cache.lens[:, :count])

    def chains_to_prune(self, count: int) -> Tensor | None:
        """(chains,) bool, which of the first ``count`` chains are to be pruned before the step that comes next."""
        return self._state.chains_to_prune(self.step_of(count))

    def enter(self, first: int, prompt_ids: Sequence[int], noise_keys: Sequence[int]) -> None:
        """Chains enter that start from one prompt.

        Args:
            first: Number of the first of them.
            prompt_ids: The prompt.
            noise_keys: Of each chain, the key of its noise.
        """
        # The first token is drawn in this step, and the position moves on with it: both start at the prompt's last.
        columns = [[prompt_ids[-1], len(prompt_ids) - 1, noise_key, 0] for noise_key in noise_keys]
        self._table[:, first : first + len(columns)] = torch.tensor(columns, dtype=torch.int64).T.to(self._device)
        if self._present is not None:
            rows = self._present[0, first : first + len(columns)]
            rows.fill_(False)  # of the chain that had this number before
            mark_tokens(rows, torch.tensor(prompt_ids, device=self._device).expand(len(columns), -1))

    def substitute(self, tokens: Mapping[int, int]) -> None:
        """Replace the last tokens of some chains, by their numbers."""
        numbers, ids = torch.tensor([list(tokens), list(tokens.values())], device=self._device)
        self._table[_LAST_TOKEN, numbers] = ids

    def draw(
        self,
        logits: list[Tensor],
        forced_ids: Sequence[int],
        decoding: int,
        static: StaticStep | None,
        observe: Callable[[Tensor], None],
    ) -> StepResult:
        """Give every chain its next token, and fetch from the device all that the host has to know of the step.

        Args:
            logits: (chains, vocabulary), of those that have decoded and then of each prompt that has just entered.
            forced_ids: By chain, the token that takes the place of a drawn one; -1 for none.
            decoding: How many of the chains have decoded; the others have just entered.
            static: What runs decode steps on tensors that never move; None if nothing does.
            observe: Called once with the logits of all chains, (chains, vocabulary), before the host waits.
        """
        count = len(forced_ids)
        forced = max(forced_ids) >= 0
        if static is None:
            size, with_rooms = count, decoding
            forced_here = torch.tensor(forced_ids, device=self._device) if forced else None
            all_logits = torch.cat(logits)
            packet = self._draw_packet(all_logits, with_rooms, forced_here)
        else:
            size = with_rooms = padded_size(count)
            if count > decoding:
                static.logits[decoding:count] = torch.cat(logits[1:] if decoding else logits)
            if forced:
                self._forced_ids[:count] = torch.tensor(forced_ids).to(self._device, non_blocking=True)
            forced_here, all_logits = self._forced_ids[:size] if forced else None, static.logits[:size]
            packet = static.run(("draw", size, forced), lambda: self._draw_packet(all_logits, with_rooms, forced_here))
        observe(all_logits[:count])
        # The one time in a step that the host waits for the device.
        numbers = packet.cpu().numpy()
        by_chain, flags = numbers[: 5 * size].reshape(5, size)[:, :count], numbers[5 * size :]
        layers, rooms = self._cache.layers, with_rooms * self._cache.kv_heads
        full = flags[: layers * rooms].astype(bool).reshape(layers, rooms)
        return StepResult(
            tokens=by_chain[0].tolist(),
            read=by_chain[1].tolist(),
            held=by_chain[2].tolist(),
            logprobs=by_chain[3].view(np.float64).tolist(),
            greedy=by_chain[4].astype(bool).tolist(),
            full=full[:, : decoding * self._cache.kv_heads],
            prunable=np.flatnonzero(flags[layers * rooms :][:count]).tolist(),
        )

    def _draw_packet(self, logits: Tensor, with_rooms: int, forced_ids: Tensor | None) -> Tensor:
        """Draw a token for as many chains as there are logits, and gather what the host has to know in one tensor.

        Args:
            logits: (chains, vocabulary).
            with_rooms: How many of the chains have rows that may be full.
            forced_ids: (chains,) int64, tokens that take the place of drawn ones, -1 for none; None if no chain has.

        Returns:
            (any,) int64: five numbers a chain, by number; flags of the rows that are full; flags of chains to prune.
        """
        count = len(logits)
        table = self._table[:, :count]
        tokens, logprobs, greedy = self._next_tokens(logits, table, forced_ids)
        table[_LAST_TOKEN] = tokens
        table[_POSITION] += 1
        table[_TOKENS] += 1
        held = self._cache.lens[:, :count].sum((0, 2))
        read = self._cache.read[:, :count].sum((0, 2)) if self._method.kind == "selector" else held
        prunable = self.chains_to_prune(count)
        full = self._cache.full_rows(with_rooms)
        # All in one tensor of int64, floats as their bits.
        parts = [tokens, read, held, logprobs.view(torch.int64), greedy.to(torch.int64), full.view(-1).to(torch.int64)]
        if prunable is not None:
            parts.append(prunable.to(torch.int64))
        return torch.cat(parts)

    def _next_tokens(self, logits: Tensor, table: Tensor, forced_ids: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Next token of every chain, its log-probability, and whether it is the most probable one (if forced)."""
        present = None
        if self._present is not None:
            rows = self._present[0, : len(logits)]
            # The chain's own tokens one by one; of one that has just entered it is the prompt's last once more.
            mark_tokens(rows, table[_LAST_TOKEN, :, None])
            present = rows[:, : self._vocabulary.rows]
        tokens, logprobs = draw_tokens(
            self._vocabulary.drawable(logits), table[_NOISE_KEY], table[_TOKENS], self._sampling, present
        )
        if forced_ids is None:
            return tokens, logprobs, torch.zeros_like(tokens)
        is_forced = forced_ids >= 0
        scores, greedy = score_tokens(logits, forced_ids.clamp(min=0))
        return (
            torch.where(is_forced, forced_ids, tokens),
            torch.where(is_forced, scores, logprobs),
            greedy & is_forced,
        )
