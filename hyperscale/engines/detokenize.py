"""Turns token ids into text: decodes them, finds stop strings, and counts the text that the first tokens make."""

from collections.abc import Sequence
from typing import Any

from hyperscale.models import thinking


class Decoder:
    """Decodes the way `Chain.text` is defined: without special tokens but marks of thinking, cut before a stop string.

    Whether a tokenizer lists its marks of thinking as special tokens is an accident of its making.
    """

    def __init__(
        self,
        tokenizer: Any,
        stop: tuple[str, ...] = (),
        marks: tuple[str, str] | None = None,
        *,
        stop_in_answer: bool = False,
    ) -> None:
        """Look for special tokens that are text.

        Args:
            tokenizer: A transformers tokenizer.
            stop: Stop strings. Special tokens in them are text as well, so that they can be found.
            marks: As in `Sampling`.
            stop_in_answer: As in `Sampling`.
        """
        self._tokenizer, self._stop = tokenizer, stop
        specials = _special_tokens(tokenizer)
        self._marks = marks or thinking.marks_of_tokens(specials.values())
        known = thinking.tokens_of_marks(self._marks)
        # Those that apply wherever they stand, and those that apply to the answer.
        in_answer = {s for s in stop if stop_in_answer and thinking.state(self._in_table_marks(s)) == "none"}
        self._stop_anywhere, self._stop_in_answer = [s for s in stop if s not in in_answer], sorted(in_answer)
        texts = {i for i, text in specials.items() if text in known or any(text in s for s in stop)}
        self._hidden_ids = frozenset(specials) - texts if texts else None
        # A stop string that the last token completes lies within so many tokens: no character takes more than four.
        self._tail = max((len(s) for s in stop), default=0) * 4 + 8

    def text(self, ids: Sequence[int], opened: str = "") -> str:
        """Text of the ids, cut before the first stop string.

        Args:
            ids: All of a chain's ids.
            opened: As in `Request`.
        """
        text = self._decode(ids)
        place = self._find_stop(text, opened)
        return text if place is None else text[:place]

    def hits_stop(self, ids: Sequence[int], opened: str = "") -> bool:
        """Whether the last token completed a stop string.

        Args:
            ids: All of a chain's ids.
            opened: As in `Request`.
        """
        if not self._stop:
            return False
        tail = self._decode(ids[-self._tail :])
        if not any(s in tail for s in self._stop):
            return False
        if any(s in tail for s in self._stop_anywhere):
            return True
        # One that an earlier token completed has been looked at. That spares most looks at the whole text.
        known = len(self._decode(ids[-self._tail : -1]).rstrip("\ufffd"))
        is_new = any(s in tail[max(known - len(s) + 1, 0) :] for s in self._stop_in_answer)
        return is_new and self._find_stop(self._decode(ids), opened) is not None

    def _find_stop(self, text: str, opened: str) -> int | None:
        """Where the first stop string that applies begins."""
        places = [text.find(s) for s in self._stop_anywhere]
        if self._stop_in_answer and (start := self._answer_start(text, opened)) is not None:
            places += [text.find(s, start) for s in self._stop_in_answer]
        return min((place for place in places if place >= 0), default=None)

    def _answer_start(self, text: str, opened: str) -> int | None:
        """Where the answer begins in a text, behind the thinking and what space follows it; None before that."""
        whole = opened + self._in_table_marks(text)
        answer = thinking.answer_text(whole)
        if answer is None:
            return None
        # The mark's own line break is no part of the answer, and "\n\n" a common stop string.
        return len(text) - len(answer if len(answer) == len(whole) else answer.lstrip())

    def _in_table_marks(self, text: str) -> str:
        return thinking.in_table_marks(text, self._marks)

    def count_chars(self, ids: Sequence[int], text: str) -> int:
        """Length of the beginning of ``text`` that is made by ``ids``, the first of its tokens.

        A character whose last bytes are still to come does not count.
        """
        return min(len(self._decode(ids).rstrip("\ufffd")), len(text))

    def _decode(self, ids: Sequence[int]) -> str:
        if self._hidden_ids is None:
            skipping, shown = True, list(ids)
        else:
            skipping, shown = False, [i for i in ids if i not in self._hidden_ids]
        text: str = self._tokenizer.decode(shown, skip_special_tokens=skipping, clean_up_tokenization_spaces=False)
        return text


def _special_tokens(tokenizer: Any) -> dict[int, str]:
    """Ids and texts of the tokens that a tokenizer leaves out if it skips special ones."""
    found = {i: str(token) for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    for i in getattr(tokenizer, "all_special_ids", ()):
        found.setdefault(i, str(tokenizer.convert_ids_to_tokens(i)))
    return found


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
