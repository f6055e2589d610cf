"""What steering inserts, in the ids of a tokenizer."""

from typing import Any

from hyperscale.engines.base import Steering
from hyperscale.errors import EngineError
from hyperscale.models.thinking import END_OF_THINKING


class Steer:
    """`Steering` for one tokenizer.

    Attributes:
        extend: As in `Steering`.
        answer: As in `Steering`.
        word: Ids of the continuation word; empty if nothing is extended.
        end: Id of the end of thinking.
        room: Most tokens that a branch adds.
    """

    def __init__(self, tokenizer: Any, steering: Steering) -> None:
        """Encode what steering inserts.

        Raises:
            EngineError: The tokenizer has no single token for the end of thinking, or cannot write the word.
        """
        self.extend, self.answer = steering.extend, steering.answer
        end = _ids(tokenizer, END_OF_THINKING)
        if end is None or len(end) != 1:
            raise EngineError(
                f"the tokenizer has no token {END_OF_THINKING}: longer chains and forced answers need a model that "
                "thinks in such marks; leave --extend and --force-answer out"
            )
        self.end = end[0]
        word = _ids(tokenizer, steering.word) if steering.extend else ()
        if word is None or (steering.extend and not word):
            raise EngineError(
                f"the tokenizer cannot write the continuation word {steering.word!r}: choose a text made of its tokens "
                f"with --extend-word{_examples(tokenizer)}"
            )
        self.word = word
        self.room = 1 + steering.answer if steering.answer else 0
        if self.end in word:
            raise EngineError(
                f"the continuation word {steering.word!r} ends the thinking: choose another --extend-word"
            )


def _ids(tokenizer: Any, text: str) -> tuple[int, ...] | None:
    """Ids of a text, or None if they do not spell it."""
    ids = tuple(int(i) for i in tokenizer.encode(text, add_special_tokens=False))
    spelled = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return ids if spelled == text else None


def _examples(tokenizer: Any) -> str:
    """Some of a small vocabulary, where a word may be hard to think of."""
    if len(tokenizer) > 1000:
        return ""
    special = set(tokenizer.all_special_tokens) | {END_OF_THINKING}
    texts = [text for text in tokenizer.get_vocab() if text.strip() and text not in special]
    return f", e.g. {', '.join(map(repr, sorted(texts, key=len, reverse=True)[:3]))}"
