"""Defines the closed vocabulary of the built-in benchmarks and its tokenizer.

Every token is a literal piece of text; encoding takes the longest piece at each place and decoding joins the pieces, so
text and ids correspond one to one. Nodes and step names carry their leading space.
"""

import re
from pathlib import Path
from typing import Any

from hyperscale.models.thinking import END_OF_THINKING, THINKING

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
THINK, END_THINK = THINKING, END_OF_THINKING
NODES = 130
SPECIAL = (PAD, USER, ASSISTANT, END)

#: Steps of the program-search benchmark and the Python expression of each, in the pieces it is written with.
STEPS: dict[str, tuple[str, ...]] = {
    "rev": ("x", "[::-1]"),
    "srt": ("sorted(", "x", ")"),
    "dsc": ("sorted(", "x", ")", "[::-1]"),
    "inc": ("[(", "d", "+", "1", ")%10", " for d in x]"),
    "dec": ("[(", "d", "-", "1", ")%10", " for d in x]"),
    "neg": ("[(", "9", "-", "d", ")%10", " for d in x]"),
    "dbl": ("[(", "d", "*", "2", ")%10", " for d in x]"),
    "tri": ("[(", "d", "*", "3", ")%10", " for d in x]"),
    "sqr": ("[(", "d", "*", "d", ")%10", " for d in x]"),
    "rol": ("x", "[1:]", "+", "x", "[:1]"),
    "ror": ("x", "[-1:]", "+", "x", "[:-1]"),
    "swp": ("x", "[len(x)//2:]", "+", "x", "[:len(x)//2]"),
    "sub": ("[(", "d", "-", "i", ")%10", " for i, d in enumerate(x)]"),
    "evn": ("x", "[::2]", "+", "x", "[1::2]"),
    "cum": ("[(", "sum(x[:i+1])", ")%10", " for i, d in enumerate(x)]"),
    "idx": ("[(", "d", "+", "i", ")%10", " for i, d in enumerate(x)]"),
    "dif": ("[(", "d", "-", "c", ")%10", " for c, d in zip([0]+x, x)]"),
    "mir": ("[(", "d", "+", "c", ")%10", " for c, d in zip(x[::-1], x)]"),
    "hig": ("[(", "max(x[:i+1])", ")%10", " for i, d in enumerate(x)]"),
    "low": ("[(", "min(x[:i+1])", ")%10", " for i, d in enumerate(x)]"),
}

_PIECES = (
    "\n", ":", "=", ";", "+", "-", "*", ">", "|", "!", ",", ".", ")",
    "f(n)=", "*f(n-1)+", "*f(n//", ") mod 1000 with", " f(", ")=", ". Find f(", ").",
    "Edges:", ". Start", ". Which can be reached?", " A)", " B)", " C)", " D)", "Answer:", " A", " B", " C", " D",
    "Find two steps of", " of",
    "The answer is ", "\\boxed{", "}",
    "```python\n", "def f(x):\n", "    x = ", "    return x\n", "```",
)  # fmt: skip


def tokens() -> list[str]:
    """All tokens in the order of their ids."""
    digits = [str(d) for d in range(10)]
    nodes = [f" n{i:02d}" for i in range(NODES)]
    counts = [f" {count}" for count in range(7)]
    steps = [f" {name}" for name in STEPS]
    code = [piece for pieces in STEPS.values() for piece in pieces]
    texts = [*SPECIAL, THINK, END_THINK, *digits, *nodes, *_PIECES, *counts, *steps, *code]
    return list(dict.fromkeys(texts))


TOKENS = tokens()
ID = {token: i for i, token in enumerate(TOKENS)}
DIGIT = [ID[str(d)] for d in range(10)]
NODE = [ID[f" n{i:02d}"] for i in range(NODES)]
#: Rows of the embedding: the vocabulary padded to a multiple of 64.
PADDED_SIZE = -(-len(TOKENS) // 64) * 64

_PATTERN = "|".join(re.escape(token) for token in sorted(TOKENS, key=len, reverse=True))


def encode(text: str) -> list[int]:
    """Ids of a text made of the vocabulary's pieces.

    Raises:
        ValueError: Some of the text is not in the vocabulary.
    """
    pieces = re.findall(_PATTERN, text)
    if sum(map(len, pieces)) != len(text):
        raise ValueError("the text has characters outside the built-in vocabulary")
    return [ID[piece] for piece in pieces]


def decode(ids: list[int]) -> str:
    """Text of ids, special tokens left out."""
    return "".join(TOKENS[i] for i in ids if TOKENS[i] not in SPECIAL)


CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<|end|>"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
)


def build_tokenizer() -> Any:
    """A transformers tokenizer of this vocabulary, with the chat template that opens the thinking."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    # Unknown text maps to padding: the model was never trained on it.
    core = Tokenizer(models.WordLevel(vocab=ID, unk_token=PAD))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        unk_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=2560,
    )


def save_tokenizer(folder: Path) -> None:
    """Write the tokenizer's files to ``folder``."""
    build_tokenizer().save_pretrained(folder)
