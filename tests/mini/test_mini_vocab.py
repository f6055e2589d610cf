"""The built-in vocabulary and the transformers tokenizer made of it."""

from random import Random

import pytest

from hyperscale.mini import vocab
from hyperscale.mini.benchmarks import GENERATORS, LEVEL_COUNT
from hyperscale.mini.vocab import ID, TOKENS, build_tokenizer, decode, encode

KINDS = tuple(GENERATORS)


def documents(kind, count):
    """``count`` documents of each level."""
    rng = Random(kind)
    return [GENERATORS[kind](rng, level) for level in range(1, LEVEL_COUNT + 1) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_is_the_vocabulary(tokenizer, kind):
    for document in documents(kind, 10):
        ids, _ = document.ids()
        for part in (document.prompt, document.chain, document.reply):
            text = decode(part)
            assert encode(text) == part
            assert tokenizer(text, add_special_tokens=False)["input_ids"] == part
        assert tokenizer.decode(ids, skip_special_tokens=True) == decode(ids)
        assert "<think>" in decode(ids)
        assert "<|" not in decode(ids)
        whole = tokenizer.decode(ids, skip_special_tokens=False)
        assert whole == "".join(TOKENS[i] for i in ids)
        assert tokenizer(whole, add_special_tokens=False)["input_ids"] == ids


@pytest.mark.parametrize("kind", KINDS)
def test_the_chat_template_opens_the_thinking(tokenizer, kind):
    document = documents(kind, 1)[0]
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": decode(document.prompt)}], add_generation_prompt=True, return_dict=False
    )
    assert ids == [ID[vocab.USER], *document.prompt, ID[vocab.ASSISTANT], ID[vocab.THINK]]
    whole, start = document.ids()
    assert ids == whole[:start]


def test_every_token_is_itself_and_unknown_text_is_refused_or_padded(tokenizer):
    assert len(tokenizer) == len(TOKENS) == len(set(TOKENS)) <= vocab.PADDED_SIZE
    assert vocab.PADDED_SIZE % 64 == 0
    for i, token in enumerate(TOKENS):
        assert encode(token) == [i]
        assert tokenizer(token, add_special_tokens=False)["input_ids"] == [i]
    assert tokenizer.eos_token_id == ID[vocab.END]
    assert tokenizer.pad_token_id == ID[vocab.PAD]
    with pytest.raises(ValueError, match="outside the built-in vocabulary"):
        encode("12 Hello")
    assert tokenizer("1?2", add_special_tokens=False)["input_ids"] == [ID["1"], ID[vocab.PAD], ID["2"]]


def test_the_tokenizer_survives_saving(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    vocab.save_tokenizer(tmp_path)
    tokenizer_again = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer_again) == len(tokenizer)
    assert tokenizer_again.chat_template == tokenizer.chat_template
    assert (tokenizer_again.eos_token_id, tokenizer_again.pad_token_id) == (
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    for kind in KINDS:
        ids, _ = documents(kind, 1)[-1].ids()
        whole = tokenizer_again.decode(ids)
        assert tokenizer_again(whole, add_special_tokens=False)["input_ids"] == ids
        assert tokenizer_again.decode(ids, skip_special_tokens=True) == decode(ids)
