"""Finds how much text makes a prompt as long as it may be."""

from collections.abc import Callable


def find_largest(count: Callable[[int], int], limit: int, *, most: int | None = None) -> int:
    """The largest amount of text whose prompt has at most so many tokens.

    The tokens grow nearly in proportion to the text, so the amount is interpolated; a prompt is only tokenised a few
    times, however long it is.

    Args:
        count: Tokens of the prompt with an amount of text, which more text never makes less; a whole number from 0 up.
        limit: Most tokens; ``count(0)`` has no more.
        most: Most text; there is always more if None.
    """
    low, low_tokens = 0, count(0)
    high, high_tokens = None, 0
    step = 64
    while most is None or low < most:
        if high is None:
            guess = low + step
        elif high - low == 1:
            break
        else:
            share = (limit - low_tokens) / max(high_tokens - low_tokens, 1)
            guess = min(max(low + int(share * (high - low)), low + 1), high - 1)
        guess = guess if most is None else min(guess, most)
        tokens = count(guess)
        if tokens <= limit:
            if high is None and tokens > low_tokens:  # the rate so far tells how far to go on
                rate = (tokens - low_tokens) / (guess - low)
                step = max(int((limit - tokens) / rate * 1.02) + 1, 1)
            else:
                step *= 2
            low, low_tokens = guess, tokens
        else:
            high, high_tokens = guess, tokens
    return low
