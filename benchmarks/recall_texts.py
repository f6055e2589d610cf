"""Makes documents for a retrofit that ask for something far back in them, of texts that the model itself has written.

Usage: python benchmarks/recall_texts.py MODEL TEXTS.jsonl OUT.jsonl [--documents 400] [--length 4096]

TEXTS.jsonl is what `hyperscale retrofit --data self` keeps in its folder data/: documents as token ids. Several of them
are laid end to end up to a random length, and a chat about them follows: three times, which sentence of the text begins
with these four words, and that sentence. OUT.jsonl has the same form; give a folder with both files to `--data`. An
eviction that forgets what is not spoken of for long pays for it in the loss of the answers.
"""

import argparse
import json
import random
import re
from pathlib import Path
from typing import Any

from hyperscale.utils.hub import load_tokenizer

_QUESTIONS = 3
_OPENING_WORDS = 4
_SENTENCE_WORDS = range(8, 31)
_ROOM = 400  # tokens for the questions and their answers
_SHORTEST = 300  # tokens of a text that is asked about


def read_texts(file: Path, tokenizer: Any) -> list[str]:
    """What the model has written, of more than 200 characters."""
    texts = []
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            document = json.loads(line)
            ids = document["ids"][document["start"] :]
            texts.append(tokenizer.decode(ids, skip_special_tokens=True).strip())
    return [text for text in texts if len(text) > 200]


def sentences_to_ask(body: str) -> list[str]:
    """Sentences of the text whose first words stand in it once."""
    found = [sentence.strip() for sentence in re.split(r"(?<=[.!?])\s+", body)]
    return [
        sentence
        for sentence in found
        if len(sentence.split()) in _SENTENCE_WORDS and body.count(opening(sentence)) == 1
    ]


def opening(sentence: str) -> str:
    """The first words of a sentence."""
    return " ".join(sentence.split()[:_OPENING_WORDS])


def chat(body: str, asked: list[str]) -> list[dict[str, str]]:
    """Questions about the text and their answers."""
    messages = []
    for number, sentence in enumerate(asked):
        question = f'Which sentence of the text above begins with "{opening(sentence)}"?'
        if not number:
            question = f"Read this text and answer the questions about it.\n\n{body}\n\n{question}"
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": sentence}]
    return messages


def main() -> None:
    """Write the documents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or name of the model, for its tokenizer and chat template")
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--length", type=int, default=4096, help="most tokens of a document")
    arguments = parser.parse_args()
    tokenizer, draw = load_tokenizer(arguments.model), random.Random(1)
    texts = read_texts(arguments.texts, tokenizer)
    made = 0
    with arguments.out.open("w", encoding="utf-8") as file:
        while made < arguments.documents:
            size, parts, characters = draw.randint(_SHORTEST, arguments.length - _ROOM), [], 0
            while characters < 4 * size:  # at least as many tokens, of any English text
                parts.append(draw.choice(texts))
                characters += len(parts[-1])
            ids = tokenizer("\n\n".join(parts), add_special_tokens=False)["input_ids"][:size]
            body = tokenizer.decode(ids)
            sentences = sentences_to_ask(body)
            if len(sentences) <= _QUESTIONS:
                continue
            messages = chat(body, draw.sample(sentences, _QUESTIONS))
            ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
            if len(ids) > arguments.length:
                continue
            file.write(json.dumps({"ids": ids, "start": 1, "finish": "stop"}) + "\n")
            made += 1
    print(f"{made} documents")


if __name__ == "__main__":
    main()
