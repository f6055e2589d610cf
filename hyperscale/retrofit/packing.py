"""Documents for a retrofit: tokenised, cut to the rows' length, packed whole into rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hyperscale.errors import RetrofitError, first_line
from hyperscale.retrofit.text_files import Source

#: Documents from which the rows are filled.
POOL = 64
#: Rows keep no free place for documents shorter than this.
CRUMB = 2
#: Share of the documents that is held out for the gate check.
HELD_OUT = 0.02
HELD_OUT_BATCHES = 4
_THINK = "<think>"


@dataclass(frozen=True)
class Document:
    """One text.

    Attributes:
        ids: (tokens,) int32.
        start: Place of the first token that the loss predicts, at least 1.
    """

    ids: np.ndarray[Any, np.dtype[np.int32]]
    start: int


@dataclass
class PackedBatch:
    """Rows of packed documents, each tensor (rows, length).

    Attributes:
        ids: Token ids.
        position: Place within the document.
        document: Number of the document in its row; -1 on padding.
        kind: 0, or -1 on padding and on each document's last token.
        weight: 1 where the next token counts in the loss.
    """

    ids: Tensor
    position: Tensor
    document: Tensor
    kind: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Corpus:
    """What a retrofit trains on, and what its check is made on."""

    train: list[Document]
    held_out: list[Document]

    @property
    def tokens(self) -> int:
        """Tokens to train on."""
        return sum(len(document.ids) for document in self.train)

    def batches(self, rows: int, length: int, seed: int) -> Iterator[PackedBatch]:
        """Endless batches; every document once a pass, but for those that wait in the pool."""
        return _batches(_endless(self.train, seed), rows, length, Random(f"rows-{seed}"))

    def check_batches(self, rows: int, length: int) -> list[PackedBatch]:
        """The held-out documents, in at most `HELD_OUT_BATCHES` batches."""
        made = _batches(iter(self.held_out), rows, length, Random("held-out"))
        return list(islice(made, HELD_OUT_BATCHES))


def build(
    source: Source, tokenizer: Any, *, length: int, window: int, wanted: int, seed: int, everything: bool
) -> Corpus:
    """Tokenise as many documents as the training will see, in an order drawn from the seed.

    A text longer than ``length`` becomes several documents; a chat is cut, since its later parts mean nothing
    without the earlier ones.

    Args:
        source: Texts or chats.
        tokenizer: The model's.
        length: Most tokens of a document.
        window: w of the delayed eviction.
        wanted: Tokens the training will see; the rest of the source is not tokenised.
        seed: Of the order.
        everything: Count every token of a chat in the loss, not only the last reply.

    Raises:
        RetrofitError: An entry is malformed, there are fewer than two documents, or none is longer than the window.
    """
    order = list(range(len(source.entries)))
    Random(f"documents-{seed}").shuffle(order)
    found: list[Document] = []
    tokens = 0
    for index in order:
        where = f"entry {index + 1} of {source.path}"
        for document in _documents(source.entries[index], where, tokenizer, length, everything):
            found.append(document)
            tokens += len(document.ids)
        if tokens > wanted * (1 + 2 * HELD_OUT) and len(found) > 1:
            break
    longest = max((len(document.ids) for document in found), default=0)
    if longest <= window + 2:
        raise RetrofitError(
            f"no document of {source.path} is longer than the window: the longest has {longest} tokens, and nothing is "
            f"evicted within {window} (--window); pass longer texts"
        )
    if len(found) < 2:
        raise RetrofitError(
            f"{source.path} holds one document of {longest} tokens: pass at least two, since one is held out"
        )
    # The check must see evictions, so a document longer than the window is among those held out.
    first = next(i for i, document in enumerate(found) if len(document.ids) > window + 2)
    found.insert(0, found.pop(first))
    kept = max(1, round(len(found) * HELD_OUT))
    return Corpus(found[kept:], found[:kept])


def _documents(entry: Any, where: str, tokenizer: Any, length: int, everything: bool) -> list[Document]:
    if isinstance(entry, str):
        ids = [*tokenizer(entry)["input_ids"]]
        if tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
            ids.append(tokenizer.eos_token_id)
        parts = [ids[at : at + length] for at in range(0, len(ids), length)]
        return [Document(np.array(part, np.int32), 1) for part in parts if len(part) >= CRUMB]
    prompt, reply = _chat(entry, where, tokenizer)
    ids = prompt + reply
    start = 1 if everything else max(1, len(prompt))
    return [Document(np.array(ids[:length], np.int32), start)] if len(ids) > start and start < length else []


def _chat(entry: Any, where: str, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids of what comes before the last reply, and of the last reply with the end token.

    The reply is put after the template's opening as it stands: templates of reasoning models take the thinking out of
    replies that are part of a conversation.
    """
    shape = "a chat is a list of messages {role, content}, the last of the role assistant"
    if not isinstance(entry, list) or not all(isinstance(each, dict) for each in entry):
        raise RetrofitError(f"{where} is neither a text nor a chat: {shape}")
    if not all(isinstance(each.get("role"), str) and isinstance(each.get("content"), str) for each in entry):
        raise RetrofitError(f"{where} has a message without role or content, or whose content is no text: {shape}")
    if len(entry) < 2 or entry[-1]["role"] != "assistant":
        raise RetrofitError(f"{where} does not end with a reply: {shape}")
    if not tokenizer.chat_template:
        raise RetrofitError("the model's tokenizer has no chat template: pass data with a text column (--column text)")
    messages = [{"role": each["role"], "content": each["content"]} for each in entry]
    try:
        opening = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
    except Exception as error:  # a template raises what its author chose
        raise RetrofitError(f"the model's chat template refuses {where}: {first_line(error)}") from None
    reply = messages[-1]["content"]
    if opening.rstrip().endswith(_THINK) and reply.lstrip().startswith(_THINK):
        reply = reply.lstrip().removeprefix(_THINK).lstrip("\n")
    prompt, ids = (list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (opening, reply))
    return prompt, [*ids, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])]


def _endless(documents: list[Document], seed: int) -> Iterator[Document]:
    rng = Random(f"passes-{seed}")
    order = list(documents)
    while True:
        rng.shuffle(order)
        yield from order


def _batches(documents: Iterator[Document], rows: int, length: int, rng: Random) -> Iterator[PackedBatch]:
    """Batches until the documents end; the last one may have empty rows."""
    pool: list[Document] = []
    while True:
        filled = [_row(documents, pool, length, rng) for _ in range(rows)]
        if not any(filled):
            return
        yield _batch(filled, length)


def _row(documents: Iterator[Document], pool: list[Document], length: int, rng: Random) -> list[Document]:
    """Best fit from the pool; a row's first document is drawn freely, or long ones would never leave the pool."""
    row: list[Document] = []
    room = length
    while room >= CRUMB:
        pool.extend(islice(documents, POOL - len(pool)))
        fits = [i for i, document in enumerate(pool) if len(document.ids) <= room]
        if not fits:
            break
        best = max(fits, key=lambda i: len(pool[i].ids)) if row else rng.choice(fits)
        row.append(pool.pop(best))
        room -= len(row[-1].ids)
    return row


def _batch(filled: list[list[Document]], length: int) -> PackedBatch:
    ids = np.zeros((len(filled), length), np.int64)
    position, document, kind = np.zeros_like(ids), np.full_like(ids, -1), np.full_like(ids, -1)
    weight = np.zeros(ids.shape, np.float32)
    for r, row in enumerate(filled):
        at = 0
        for number, each in enumerate(row):
            end = at + len(each.ids)
            ids[r, at:end] = each.ids
            position[r, at:end] = np.arange(len(each.ids))
            document[r, at:end] = number
            kind[r, at : end - 1] = 0
            weight[r, at + each.start - 1 : end - 1] = 1.0
            at = end
    return PackedBatch(*(torch.from_numpy(each) for each in (ids, position, document, kind, weight)))
