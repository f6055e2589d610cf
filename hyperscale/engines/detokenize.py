"""Turns token ids into text: decodes them, finds stop strings, and counts the text that the first tokens make."""

from collections.abc import Sequence
from typing import Any


class Decoder:
    """Decodes the way `Chain.text` is defined: without special tokens, cut before a stop string."""

    def __init__(self, tokenizer: Any, stop: tuple[str, ...] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        # A stop string that the last token completes lies within so many tokens: no character takes more than four.
        self._tail = max((len(s) for s in stop), default=0) * 4 + 8

    def text(self, ids: Sequence[int]) -> str:
        """Text of the ids, cut before the first stop string."""
        text = self._decode(ids)
        places = [place for place in (text.find(s) for s in self._stop) if place >= 0]
        return text[: min(places)] if places else text

    def hits_stop(self, ids: Sequence[int]) -> bool:
        """Whether the last token completed a stop string."""
        if not self._stop:
            return False
        tail = self._decode(ids[-self._tail :])
        return any(s in tail for s in self._stop)

    def count_chars(self, ids: Sequence[int], text: str) -> int:
        """Length of the beginning of ``text`` that is made by ``ids``, the first of its tokens.

        A character whose last bytes are still to come does not count.
        """
        return min(len(self._decode(ids).rstrip("\ufffd")), len(text))

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end a sequence: those of the generation configuration, else of the model's, and the tokenizer's.

    The tokenizer's is one of them in any case, as in vLLM: a fine-tuned model often has its new end there alone.
    """
    found: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config):
        ids = getattr(source, "eos_token_id", None)
        if ids is not None:
            found |= {ids} if isinstance(ids, int) else set(ids)
            break
    own = getattr(tokenizer, "eos_token_id", None)
    return frozenset(found if own is None else found | {own})
