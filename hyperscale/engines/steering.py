"""Translates steering into the ids of a tokenizer."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.detokenize import Decoder
from hyperscale.errors import EngineError
from hyperscale.models import thinking
from hyperscale.models.thinking import END_OF_THINKING, THINKING, Marks

_SMALL_VOCABULARY = 1000  # up to here, a message names words that can be written
_MARK_TOKENS = 24  # tokens in which any mark of thinking can be written


class TokenSteering:
    """`Steering` for one tokenizer.

    Attributes:
        extend: As in `Steering`.
        answer: As in `Steering`.
        word_ids: Ids of the continuation word; empty if nothing is extended.
    """

    def __init__(self, tokenizer: Any, sampling: Sampling) -> None:
        """Encode what steering inserts.

        Raises:
            EngineError: The tokenizer cannot write the word, or the word ends the thinking.
        """
        steering = sampling.steering
        self.extend, self.answer = steering.extend, steering.answer
        self._tokenizer, self._decoder = tokenizer, Decoder(tokenizer, marks=sampling.marks)
        self._own = sampling.marks
        self._ids = cache(self._encode)
        word_ids = self._ids(steering.word) if steering.extend else ()
        if word_ids is None or (steering.extend and not word_ids):
            raise EngineError(
                f"the tokenizer cannot write the continuation word {steering.word!r}: choose a text made of its tokens "
                f"with --extend-word{_suggest_words(tokenizer)}"
            )
        self.word_ids = word_ids
        if steering.extend and thinking.state(self._in_table_marks(steering.word)) != "none":
            raise EngineError(
                f"the continuation word {steering.word!r} begins or ends the thinking: choose another --extend-word"
            )

    def open_marks(self, request: Request, ids: Sequence[int]) -> tuple[Marks | None, bool]:
        """The marks of the thinking that is open behind a chain's tokens, and whether there was any thinking."""
        text = request.opened + self._in_table_marks(self._decoder.text(ids))
        return thinking.open_marks(text), thinking.state(text) != "none"

    def may_have_turned(self, ids: Sequence[int]) -> bool:
        """Whether the last token may have completed a mark of thinking; without a doubt if it has not."""
        tail = self._in_table_marks(self._decoder.text(ids[-_MARK_TOKENS:]))
        return thinking.ends_in_mark(tail)

    def end_id(self, marks: Marks | None) -> int | None:
        """The token by which a thinking ends; None if that takes several tokens, or none is open."""
        if marks is None:
            return None
        ids = self._ids(marks.end_token or self._in_own_marks(marks.closing))
        return ids[0] if ids is not None and len(ids) == 1 else None

    @property
    def possible_end_ids(self) -> frozenset[int]:
        """The tokens by which any thinking may end that ends with one token."""
        return frozenset(token for token in map(self.end_id, thinking.TABLE) if token is not None)

    def reopening_ids(self, marks: Marks) -> tuple[int, ...]:
        """What is inserted where a thinking has ended that is to go on: its opening, and the word."""
        return (self._ids(self._in_own_marks(marks.opening)) or ()) + self.word_ids

    def answer_ids(self, request: Request, ids: Sequence[int]) -> tuple[int, ...]:
        """What is inserted behind a chain's tokens so that an answer follows.

        An open thinking is closed. Where there was none, the answer begins as the task has it. An answer that has begun
        behind a thinking goes on.

        Raises:
            EngineError: The tokenizer cannot write that.
        """
        marks, was_thinking = self.open_marks(request, ids)
        return self._must_encode(self._insertion(marks, request)) if marks or not was_thinking else ()

    def branch_tokens(self, request: Request) -> int:
        """Most tokens that a branch adds to a chain of a request: what is inserted, and the answer.

        Raises:
            EngineError: The tokenizer cannot write what has to be inserted.
        """
        if not self.answer:
            return 0
        opened = thinking.find(request.opened)
        first = len(self._must_encode(self._insertion(opened, request)))
        if opened is None:  # the model may open a thinking by itself, in a mark that is one token
            ends = (self._ids(self._insertion(marks, request)) or () for marks in self._likely_marks)
            first = max([first, *map(len, ends)])
        return first + self.answer

    @property
    def _likely_marks(self) -> list[Marks]:
        """Marks that this model may open: those that the tokenizer has tokens for."""
        openings = ((marks, self._ids(self._in_own_marks(marks.opening))) for marks in thinking.TABLE)
        return [marks for marks, ids in openings if ids is not None and len(ids) == 1]

    def _insertion(self, marks: Marks | None, request: Request) -> str:
        """The text behind which an answer follows."""
        return request.cue if marks is None else self._in_own_marks(marks.insertion)

    def _in_table_marks(self, text: str) -> str:
        return thinking.in_table_marks(text, self._own)

    def _in_own_marks(self, text: str) -> str:
        """The model's own marks stand for the first of the table everywhere else."""
        opening, closing = self._own or (THINKING, END_OF_THINKING)
        return {THINKING: opening, END_OF_THINKING: closing}.get(text, text)

    def _encode(self, text: str) -> tuple[int, ...] | None:
        """Ids of a text, or None if they do not decode to it."""
        ids = tuple(int(i) for i in self._tokenizer.encode(text, add_special_tokens=False))
        round_trip = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        # Some tokenizers put a space in front of every text.
        return ids if round_trip.removeprefix(" ") == text.removeprefix(" ") else None

    def _must_encode(self, text: str) -> tuple[int, ...]:
        ids = self._ids(text)
        if ids is None:
            raise EngineError(
                f"the tokenizer cannot write {text!r}, behind which a forced answer stands: leave --force-answer out"
            )
        return ids


def _suggest_words(tokenizer: Any) -> str:
    """Some words of a small vocabulary, for which a word may be hard to think of."""
    if len(tokenizer) > _SMALL_VOCABULARY:
        return ""
    special = set(tokenizer.all_special_tokens) | {END_OF_THINKING, THINKING}
    texts = [text for text in tokenizer.get_vocab() if text.strip() and text not in special]
    return f", e.g. {', '.join(map(repr, sorted(texts, key=len, reverse=True)[:3]))}"
