"""Tokenises texts and chats into the documents that a retrofit trains on, and holds some out for the gate check."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from random import Random
from typing import Any

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError

from hyperscale.errors import ModelError, RetrofitError
from hyperscale.models import thinking
from hyperscale.models.prompts import apply_template, choose_template, with_date
from hyperscale.retrofit.packing import RowPacker, TokenizedDocument, TrainingBatch
from hyperscale.retrofit.sources.text_files import TextEntry, TextSource, TokenIds
from hyperscale.utils.validation import first_fault

#: Documents among which a row's next one is chosen.
POOL_SIZE = 64
#: Fewest tokens of a document: a shorter one predicts nothing, and rows keep no place free for it.
SHORTEST = 2
#: Share of the documents that is held out for the gate check.
HELD_OUT = 0.02
HELD_OUT_BATCHES = 4
_TURN = 60  # characters in which a template opens the model's turn
_CHAT = "a chat is a list of messages {role, content}, the last of the role assistant"


class ChatMessage(BaseModel):
    """A message of a chat; other keys than these are ignored."""

    role: str
    content: str


_CHATS = TypeAdapter(list[ChatMessage])


@dataclass(frozen=True)
class Corpus:
    """Documents to train on, and those held out for the gate check.

    Attributes:
        train: Those to train on.
        held_out: Those held out.
        joined: Whether the documents of a row are one to attention.
        note: What was left out, in a line; empty if nothing was.
        left_out: Number of entries whose prompt fills a row.
    """

    train: list[TokenizedDocument]
    held_out: list[TokenizedDocument]
    joined: bool = False
    note: str = ""
    left_out: int = 0

    @property
    def tokens(self) -> int:
        """Tokens to train on."""
        return sum(len(document.ids) for document in self.train)

    @property
    def counts_all(self) -> bool:
        """Whether the loss counts every token of every document."""
        return all(document.start <= 1 for document in (*self.train, *self.held_out))

    def hash(self) -> str:
        """Sixteen hexadecimal digits that identify the documents and their order."""
        digest = hashlib.sha256()
        for documents in (self.train, self.held_out):
            for document in documents:
                digest.update(f"{len(document.ids)} {document.start} {document.kind} ".encode())
                digest.update(document.ids.tobytes())
            digest.update(b"end ")
        return digest.hexdigest()[:16]

    def training_batches(self, rows: int, length: int, seed: int) -> Iterator[TrainingBatch]:
        """Endless batches; every document once a pass, except those that wait in the packer's pool."""
        return self._pack(_repeat(self.train, seed), rows, length, Random(f"rows-{seed}"))

    def held_out_batches(self, rows: int, length: int) -> list[TrainingBatch]:
        """The held-out documents, in at most `HELD_OUT_BATCHES` batches."""
        return list(islice(self._pack(iter(self.held_out), rows, length, Random("held-out")), HELD_OUT_BATCHES))

    def _pack(
        self, documents: Iterator[TokenizedDocument], rows: int, length: int, rng: Random
    ) -> Iterator[TrainingBatch]:
        packer = RowPacker(documents, length, rng, pool_size=POOL_SIZE, least_room=SHORTEST, joined=self.joined)
        return packer.batches(rows)


def _repeat(documents: list[TokenizedDocument], seed: int) -> Iterator[TokenizedDocument]:
    """The documents again and again, each pass in another order."""
    rng = Random(f"passes-{seed}")
    order = list(documents)
    while True:
        rng.shuffle(order)
        yield from order


def build_corpus(
    source: TextSource,
    tokenizer: Any,
    *,
    length: int,
    window: int,
    training_tokens: int,
    seed: int,
    whole_chats: bool,
    joined: bool = False,
    date: datetime | None = None,
) -> Corpus:
    """Tokenise as many documents as the training will see, in an order drawn from the seed.

    A text longer than ``length`` becomes several documents; a chat is cut, since its later parts mean nothing
    without the earlier ones.

    Args:
        source: Texts or chats.
        tokenizer: The model's.
        length: Most tokens of a document.
        window: w of the delayed eviction.
        training_tokens: Tokens the training will see; the rest of the source is not tokenised.
        seed: Of the order.
        whole_chats: Count every token of a chat in the loss, not only the last reply.
        joined: Make the documents of a row one to attention.
        date: What chat templates take for the present; now if None.

    Raises:
        RetrofitError: An entry is malformed, all prompts fill a row, there are fewer than two documents, or none to
            train on is longer than the window.
    """
    date = date or datetime.now()
    order = list(range(len(source.entries)))
    Random(f"documents-{seed}").shuffle(order)
    documents: list[TokenizedDocument] = []
    tokens = seen = left_out = 0
    for index in order:
        seen += 1
        made = _tokenize(source.entries[index], tokenizer, length, whole_chats, date)
        if made is None:
            left_out += 1
            continue
        documents += made
        tokens += sum(len(document.ids) for document in made)
        # With a margin of twice the held-out share: held-out documents may be longer than the mean.
        if tokens > training_tokens * (1 + 2 * HELD_OUT) and len(documents) > 1:
            break
    note = ""
    if left_out:
        note = (
            f"{left_out:,} of {seen:,} entries were left out: their prompts take a row of {length} tokens or more; "
            "pass a larger --length"
        )
        if not documents:
            raise RetrofitError(f"nothing of {source.path} is left to train on: {note}")
    lengths = [len(document.ids) for document in documents]
    # Joined, those of a row are one document.
    longest = min(length, sum(lengths)) if joined else max(lengths, default=0)
    if longest <= window + 2:
        raise RetrofitError(
            f"no document of {source.path} is longer than the window: the longest has {longest} tokens, and nothing is "
            f"evicted within {window} (--window); pass longer texts{note and f'. {note}'}"
        )
    if len(documents) < 2:
        raise RetrofitError(
            f"{source.path} holds one document of {longest} tokens: pass at least two, since one is held out"
            f"{note and f'. {note}'}"
        )
    # The check must see evictions: a document longer than the window is held out, or as many as make one when joined.
    first_long = next((i for i, document in enumerate(documents) if len(document.ids) > window + 2), 0)
    documents.insert(0, documents.pop(first_long))
    count = max(1, round(len(documents) * HELD_OUT))
    while sum(len(document.ids) for document in documents[:count]) <= window + 2 and count < len(documents) - 1:
        count += 1
    if not joined and all(len(document.ids) <= window + 2 for document in documents[count:]):
        long = sum(size > window + 2 for size in lengths)
        raise RetrofitError(
            f"{source.path} has {long} of {len(documents):,} documents longer than the window (--window {window}), "
            "held out for the gate check, and nothing would be evicted in the training: pass more long texts, or "
            "--packing joined"
        )
    return Corpus(train=documents[count:], held_out=documents[:count], joined=joined, note=note, left_out=left_out)


def _tokenize(
    entry: TextEntry, tokenizer: Any, length: int, whole_chats: bool, date: datetime
) -> list[TokenizedDocument] | None:
    """The documents of a text (one for each ``length`` tokens) or of a chat (one); None if its prompt fills a row."""
    if isinstance(entry.content, TokenIds):
        known, start = entry.content
        if known and max(known) >= len(tokenizer):
            raise RetrofitError(
                f"{entry.place} has the token id {max(known)}, and the model's tokenizer has {len(tokenizer)} tokens: "
                "pass ids that this model's tokenizer made"
            )
        start = 1 if whole_chats else start
        if start >= length:
            return None
        return [TokenizedDocument(np.array(known[:length], np.int32), start)] if start < len(known) else []
    if isinstance(entry.content, str):
        ids = [*tokenizer(entry.content)["input_ids"]]
        if tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
            ids.append(tokenizer.eos_token_id)
        parts = [ids[begin : begin + length] for begin in range(0, len(ids), length)]
        return [TokenizedDocument(np.array(part, np.int32), 1) for part in parts if len(part) >= SHORTEST]
    prompt, reply = _tokenize_chat(entry, tokenizer, date)
    ids = prompt + reply
    start = 1 if whole_chats else max(1, len(prompt))
    if start >= length:
        return None
    return [TokenizedDocument(np.array(ids[:length], np.int32), start)] if len(ids) > start else []


def _tokenize_chat(entry: TextEntry, tokenizer: Any, date: datetime) -> tuple[list[int], list[int]]:
    """Token ids of what comes before the last reply, and of the last reply with the end token.

    The reply is put after the template's opening as it stands: templates of reasoning models take the thinking out of
    replies that are part of a conversation.
    """
    place = entry.place
    try:
        chat = _CHATS.validate_python(entry.content)
    except ValidationError as error:
        location, fault = first_fault(error)
        message = f", message {int(location[0]) + 1}: {' '.join(map(str, location[1:]))}" if location else ""
        raise RetrofitError(f"{place}{message} {fault}: {_CHAT}") from None
    if len(chat) < 2 or chat[-1].role != "assistant":
        raise RetrofitError(f"{place} does not end with a reply: {_CHAT}")
    messages = [message.model_dump() for message in chat]
    try:
        template = choose_template(tokenizer)
        if template is None:
            raise RetrofitError(
                "the model's tokenizer has no chat template: pass data with a text column (--column text)"
            )
        template = with_date(template, date)
        opening = apply_template(tokenizer, messages[:-1], template, remedy="mend or drop this chat")
    except ModelError as error:
        raise RetrofitError(f"{place}: {error}") from None
    reply = messages[-1]["content"]
    # Many templates open the thinking themselves: a mark in the reply would be the second.
    marks = thinking.open_marks(opening.rstrip()[-_TURN:])
    if marks is not None and thinking.ends_in_mark(opening.rstrip()):
        reply = re.sub(rf"^\s*(?:{marks.patterns[0]})\n*", "", reply)
    prompt, ids = (list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (opening, reply))
    return prompt, [*ids, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])]
