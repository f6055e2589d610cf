"""Has the model write the user's messages that it then answers, from where its chat template lets the user speak."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import Any, Literal

from hyperscale.engines.base import Chain, Engine, Request, Sampling
from hyperscale.errors import ModelError, RetrofitError
from hyperscale.models.prompts import PromptFormat, apply_template, choose_template, with_date
from hyperscale.utils.files import append_whole, cut_torn_line, write_atomic
from hyperscale.utils.row_files import read_rows

#: Most tokens of a message: what has not ended by then is no message.
MESSAGE_TOKENS = 200
#: Of so many messages in a row at least so many must be new, or the model is taken to have no more of them.
PATIENCE, LEAST_NEW = 256, 5
#: Messages of a round for each that is missing and of which only a share can be used, so that one round mostly does.
_MARGIN = 1.1
_MARK = "hyperscale-message"
_REMEDY = "pass --prompts FILE, or leave --prompts out for documents without messages"

Outcome = Literal["new", "duplicate", "unended", "empty", "unfit"]
"""What became of a message; unfit ones are too long for a row, or the template does not take them."""


@dataclass(frozen=True)
class Turn:
    """What a chat template puts around the first message of a user.

    Attributes:
        opening: Token ids in front of it; empty if there is nothing.
        end: Token of the vocabulary's own, such as ``<|im_end|>``, that stands first behind it; None if none does.
        stop: The text behind it where that begins with no such token, as ``[/INST]`` does; empty if there is none.
    """

    opening: tuple[int, ...]
    end: int | None = None
    stop: str = ""


def find_turn(tokenizer: Any, date: datetime | None = None) -> Turn:
    """The user's turn in the chat template; an empty one if the tokenizer has no template.

    Args:
        tokenizer: The model's.
        date: What the template takes for the present; now if None.

    Raises:
        ModelError: The template fails.
    """
    template = choose_template(tokenizer)
    if template is None:
        return Turn(())
    message = [{"role": "user", "content": _MARK}]
    template = with_date(template, date or datetime.now())
    text = apply_template(tokenizer, message, template, remedy="pass --prompts FILE")
    before, _, behind = text.partition(_MARK)
    behind = behind.strip()
    opening = tuple(tokenizer(before, add_special_tokens=False)["input_ids"])
    first = next(iter(tokenizer(behind, add_special_tokens=False)["input_ids"]), None)
    if first is None or first in {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}:
        return Turn(opening, first)
    return Turn(opening, stop=behind)


class OwnMessages:
    """Messages that the model writes, and the prompts that they make.

    All that are drawn are kept in ``drawn.jsonl``, a line each: ``message`` and whether it ``ended`` by itself. A
    message's noise depends on the seed and its number alone, and how many are drawn at a time on what is there. So a
    process that goes on where another was killed writes the same. ``prompts.jsonl`` has those that can be answered, a
    line each: ``prompt``.

    Attributes:
        prompts: Token ids of the prompts, in the order of their messages; grows.
    """

    def __init__(
        self, folder: Path, tokenizer: Any, length: int, sampling: Sampling, date: datetime | None = None
    ) -> None:
        """Read what earlier processes wrote.

        Args:
            folder: Where the files are.
            tokenizer: The model's.
            length: Tokens of a row, in which a prompt leaves room for an answer.
            sampling: How messages are drawn.
            date: What the chat template takes for the present; now if None.

        Raises:
            RetrofitError: The model has no chat template, or one that begins with the message; rows are too short; or
                a file cannot be read.
            ModelError: The template fails.
        """
        self._turn = find_turn(tokenizer, date)
        if not self._turn.opening:
            lack = "the model's has nothing in front of a message" if tokenizer.chat_template else "the model has none"
            raise RetrofitError(
                f"--prompts self has the model write from where a chat template lets the user speak; {lack}: {_REMEDY}"
            )
        # Half of a row is for the answer.
        self._limit = min(MESSAGE_TOKENS, length // 2 - len(self._turn.opening))
        if self._limit < 1:
            raise RetrofitError(
                f"half of a row of {length} tokens has no room for messages: the chat template takes "
                f"{len(self._turn.opening)} before they begin; pass a larger --length"
            )
        self._tokenizer, self._format, self._length = tokenizer, PromptFormat(tokenizer, date=date), length
        self._sampling = replace(sampling, stop=(self._turn.stop,) if self._turn.stop else ())
        self._drawn, self._file = folder / "drawn.jsonl", folder / "prompts.jsonl"
        self.prompts: list[tuple[int, ...]] = []
        self._messages: dict[str, None] = {}  # those of the prompts, in their order
        self._outcomes: list[Outcome] = []
        self._load()

    def _load(self) -> None:
        if not self._drawn.exists():
            return
        cut_torn_line(self._drawn)
        for row in read_rows(self._drawn, RetrofitError):
            self._take(row.row["message"], row.row["ended"])
        lines = _format_prompts(list(self._messages))
        if not self._file.exists() or self._file.read_bytes() != lines:  # a kill came between the two files
            write_atomic(self._file, lines)

    def require(self, answered: int) -> None:
        """Refuse to go on without the messages that documents answer.

        Args:
            answered: Number of documents.

        Raises:
            RetrofitError: There are fewer messages.
        """
        if answered > len(self.prompts):
            raise RetrofitError(
                f"{self._drawn} has {len(self.prompts):,} messages that can be answered, and {answered:,} have been: "
                "bring back the file, or pass another --out"
            )

    def write(self, count: int, engine: Engine, batch: int, report: Any) -> None:
        """Write messages until there are enough prompts.

        Args:
            count: Prompts that there have to be.
            engine: What writes them.
            batch: Most messages of a round, after which they are on the disk.
            report: Called with lines.

        Raises:
            RetrofitError: Hardly any of the last ones is new.
            EngineError: The engine failed.
        """
        while (missing := count - len(self.prompts)) > 0:
            self._require_new_ones(missing)
            # As many as are missing if as many of them can be used as of those before.
            share = max(len(self.prompts), 1) / max(len(self._outcomes), 1)
            first = len(self._outcomes)
            numbers = range(first, first + min(batch, ceil(_MARGIN * missing / share)))
            requests = (Request(f"ask/{number}", 0, self._turn.opening, self._limit) for number in numbers)
            chains = {int(c.problem.partition("/")[2]): c for c in engine.generate(requests, self._sampling)}
            drawn = [self._read(chains[number]) for number in numbers]
            known = len(self.prompts)
            lines = (json.dumps({"message": text, "ended": ended}, ensure_ascii=False) + "\n" for text, ended in drawn)
            append_whole(self._drawn, "".join(lines).encode())
            for text, ended in drawn:
                self._take(text, ended)
            append_whole(self._file, _format_prompts(list(self._messages)[known:]))
            report(f"{len(self._outcomes):,} messages, of which {len(self.prompts):,} can be answered")

    def summarise(self) -> dict[str, str]:
        """How many were drawn, and what became of them, for the record."""
        drawn, counts = len(self._outcomes), Counter(self._outcomes)
        return {
            "messages": f"{counts['new']:,} of {drawn:,} that the model wrote can be answered",
            "messages there before": f"{counts['duplicate'] / drawn:.1%}",
            "messages without an end": f"{counts['unended'] / drawn:.1%} within {self._limit} tokens",
            "messages empty or too long": f"{(counts['empty'] + counts['unfit']) / drawn:.1%}",
        }

    def _read(self, chain: Chain) -> tuple[str, bool]:
        """Text of a message, and whether it ended: by an end of sequence, or as the template ends it."""
        if self._turn.end in chain.token_ids:
            ids = chain.token_ids[: chain.token_ids.index(self._turn.end)]
            return self._tokenizer.decode(ids, skip_special_tokens=True).strip(), True
        return chain.text.strip(), chain.finish == "stop"

    def _take(self, message: str, ended: bool) -> None:
        """Note what becomes of the next message, and make a prompt of it if it is new."""
        self._outcomes.append(self._judge(message, ended))

    def _judge(self, message: str, ended: bool) -> Outcome:
        """What becomes of a message; the prompt of a new one is added."""
        if not ended:
            return "unended"
        if not message:
            return "empty"
        if message in self._messages:
            return "duplicate"
        if (prompt := self._prompt(message)) is None:
            return "unfit"
        self.prompts.append(prompt)
        self._messages[message] = None
        return "new"

    def _prompt(self, message: str) -> tuple[int, ...] | None:
        """Token ids of a message's prompt; None if it leaves no room in a row or the template does not take it."""
        try:
            ids = self._format.prompt(message).ids
        except ModelError:  # it has marks in it that the template gives a meaning
            return None
        return ids if len(ids) < self._length - 1 else None

    def _require_new_ones(self, missing: int) -> None:
        last = Counter(self._outcomes[-PATIENCE:])
        if len(self._outcomes) < PATIENCE or last["new"] >= LEAST_NEW:
            return
        if last["duplicate"] > PATIENCE // 2:
            remedy = "draw from more, with a higher --own-temperature or --own-top-p"
        elif self._limit < MESSAGE_TOKENS:
            remedy = "pass a larger --length, half of which is a message's at most"
        else:
            remedy = "draw from less, as with --own-top-p 0.95"
        raise RetrofitError(
            f"{missing:,} more messages are to be answered, and of the last {PATIENCE} that the model wrote "
            f"{last['new']} are new: {last['unended']} did not end within {self._limit} tokens, {last['duplicate']} "
            f"were there before, {last['empty'] + last['unfit']} are empty or too long for a row; {remedy}, or pass "
            f"--prompts FILE: with {self._file} each of those there is answered again and again"
        )


def _format_prompts(messages: list[str]) -> bytes:
    return "".join(json.dumps({"prompt": message}, ensure_ascii=False) + "\n" for message in messages).encode()
