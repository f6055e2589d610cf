"""The costs of one chain, at every length it may later be cut to."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KVTrace:
    """Costs of one chain at increasing numbers of generated tokens.

    Step *s* of decoding processes generated token *s* (position ``prompt + s - 1``) and attends to every live entry,
    its own included, or to those that a selector chose. The last generated token is never processed, so a chain of T
    tokens has T - 1 decode steps and a full cache reads ``sum(prompt + s for s in 1..T-1)``. Prefill reads are told
    apart. All figures are means over layers and KV heads; a (key, value) pair counts once.

    Attributes:
        lengths: Numbers of generated tokens, ascending; the last is the chain's own length T.
        kv_reads: Cumulative decode reads of the chain cut to each length, in entries.
        peak_kv: Largest number of live entries up to each length, in entries. The state after prefill counts,
            with what was evicted from the prompt already gone. Prompts are evicted from layer by layer, so that only
            one layer is ever whole.
        chars: Characters of the chain's text made by the first ``lengths[i]`` tokens.
        logprobs: Sum of the log-probabilities (temperature 1) of the tokens drawn up to each length.
        inserted: Tokens up to each length that were not drawn: continuation words, see `engines.base.Steering`.
        prefill_kv: Live entries right after prefill, which is what the method left of the prompt.
        prefill_reads: Entries that the prompt's own queries attended to, in entries; None where the engine cannot tell.
    """

    lengths: tuple[int, ...]
    kv_reads: tuple[float, ...]
    peak_kv: tuple[float, ...]
    chars: tuple[int, ...]
    logprobs: tuple[float, ...]
    inserted: tuple[int, ...]
    prefill_kv: float | None = None
    prefill_reads: float | None = None


def dense_reads(prompt: int, tokens: int) -> int:
    """Decode reads of a chain with an uncompressed cache, in entries (see `KVTrace`)."""
    # Step s reads prompt + s entries, so T - 1 steps read (T - 1) prompt + 1 + 2 + … + (T - 1).
    steps = max(tokens - 1, 0)
    return steps * prompt + steps * (steps + 1) // 2


def dense_prefill_reads(prompt: int) -> int:
    """Reads of a prompt that attends to all of itself, in entries: query q sees q + 1 of them."""
    return prompt * (prompt + 1) // 2


def dense_peak(prompt: int, tokens: int) -> int:
    """Peak entries of a chain with an uncompressed cache."""
    return prompt + max(tokens - 1, 0)


def budgeted_reads(prompt: int, tokens: int, budget: int) -> int:
    """Decode reads of a chain whose cache is full until it holds ``budget`` entries, and has as many from then on."""
    # The first full tokens of the chain find room; later steps read the budget.
    full = min(max(budget - prompt, 1), tokens)
    return min(dense_reads(prompt, tokens), dense_reads(prompt, full) + (tokens - full) * budget)
