"""Translates steering into the ids of a tokenizer."""

from typing import Any

from hyperscale.engines.base import Steering
from hyperscale.errors import EngineError
from hyperscale.models.thinking import END_OF_THINKING

_SMALL_VOCABULARY = 1000  # up to here, a message names words that can be written


class TokenSteering:
    """`Steering` for one tokenizer.

    Attributes:
        extend: As in `Steering`.
        answer: As in `Steering`.
        word_ids: Ids of the continuation word; empty if nothing is extended.
        end_id: Id of the end of thinking.
        branch_tokens: Most tokens that a branch adds to a chain.
    """

    def __init__(self, tokenizer: Any, steering: Steering) -> None:
        """Encode what steering inserts.

        Raises:
            EngineError: The tokenizer has no single token for the end of thinking, or cannot write the word.
        """
        self.extend, self.answer = steering.extend, steering.answer
        mark_ids = _encode(tokenizer, END_OF_THINKING)
        if mark_ids is None or len(mark_ids) != 1:
            raise EngineError(
                f"the tokenizer has no token {END_OF_THINKING}: longer chains and forced answers need a model that "
                "thinks in such marks; leave --extend and --force-answer out"
            )
        self.end_id = mark_ids[0]
        word_ids = _encode(tokenizer, steering.word) if steering.extend else ()
        if word_ids is None or (steering.extend and not word_ids):
            raise EngineError(
                f"the tokenizer cannot write the continuation word {steering.word!r}: choose a text made of its tokens "
                f"with --extend-word{_suggest_words(tokenizer)}"
            )
        self.word_ids = word_ids
        self.branch_tokens = 1 + steering.answer if steering.answer else 0
        if self.end_id in word_ids:
            raise EngineError(
                f"the continuation word {steering.word!r} ends the thinking: choose another --extend-word"
            )


def _encode(tokenizer: Any, text: str) -> tuple[int, ...] | None:
    """Ids of a text, or None if they do not decode to it."""
    ids = tuple(int(i) for i in tokenizer.encode(text, add_special_tokens=False))
    round_trip = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return ids if round_trip == text else None


def _suggest_words(tokenizer: Any) -> str:
    """Some words of a small vocabulary, for which a word may be hard to think of."""
    if len(tokenizer) > _SMALL_VOCABULARY:
        return ""
    special = set(tokenizer.all_special_tokens) | {END_OF_THINKING}
    texts = [text for text in tokenizer.get_vocab() if text.strip() and text not in special]
    return f", e.g. {', '.join(map(repr, sorted(texts, key=len, reverse=True)[:3]))}"
