"""Text of a chain: characters of several tokens, stop strings, and the text that the first tokens make."""

from types import SimpleNamespace

import pytest
import scripted

from hyperscale.engines.detokenize import Decoder, end_ids


class Bytes:
    """A byte-level tokenizer; id 256 is special."""

    eos_token_id = 256

    def decode(self, ids, skip_special_tokens, clean_up_tokenization_spaces):
        return bytes(i for i in ids if i < 256).decode(errors="replace")


def test_half_a_character_does_not_count():
    ids = tuple("aé∞!".encode())
    decoder = Decoder(Bytes())
    text = decoder.text(ids)
    assert text == "aé∞!"
    assert [decoder.count_chars(ids[:n], text) for n in range(len(ids) + 1)] == [0, 1, 1, 2, 2, 2, 3, 4]


def test_stop_strings_in_bytes():
    decoder = Decoder(Bytes(), stop=("∞∞", "END"))
    ids = list("x∞y∞∞zEND".encode())
    first = next(n for n in range(1, len(ids) + 1) if decoder.hits_stop(ids[:n]))
    assert bytes(ids[:first]).decode() == "x∞y∞∞"
    assert decoder.text(ids[:first]) == "x∞y"
    assert decoder.count_chars(ids[: first - 1], "x∞y") == 3
    assert not Decoder(Bytes()).hits_stop(ids)


def test_special_tokens_leave_no_text():
    assert Decoder(Bytes()).text([104, 105, 256]) == "hi"


@pytest.mark.parametrize(
    ("pieces", "marks"),
    [
        (("<think>", "hm", "</think>", "4"), None),
        (("[THINK]", "hm", "[/THINK]", "4"), None),
        (("<|channel|>", "analysis", "<|message|>", "hm", "<|channel|>", "final", "<|message|>", "4"), None),
        (("◁think▷", "hm", "◁/think▷", "4"), None),
        (("<|think_start|>", "hm", "<|think_end|>", "4"), None),  # as the tokenizer's own names tell
        (("<|plan|>", "hm", "<|/plan|>", "4"), ("<|plan|>", "<|/plan|>")),
    ],
)
@pytest.mark.parametrize("special", [True, False])
def test_marks_of_thinking_are_text_even_where_they_are_special_tokens(pieces, marks, special):
    words = scripted.tokenizer(pieces, special=[p for p in pieces if p[0] in "<[◁"] if special else ())
    text = "".join(pieces)
    ids = words.encode(f"<|user|>{text}{scripted.END}")
    decoder = Decoder(words, marks=marks)
    assert decoder.text(ids) == text
    # As it streams: the text of the first tokens is the beginning of the whole text.
    lengths = [decoder.count_chars(ids[:n], text) for n in range(len(ids) + 1)]
    assert lengths == sorted(lengths)
    assert [decoder.text(ids[:n]) for n in range(len(ids) + 1)] == [text[:n] for n in lengths]


def test_other_special_tokens_leave_no_text_beside_marks():
    words = scripted.tokenizer(["<think>", "<|tool|>"], special=["<think>", "<|tool|>"])
    assert Decoder(words).text(words.encode("<|tool|><think>a<|tool|>b<|user|>")) == "<think>ab"


def test_a_stop_string_may_be_a_special_token():
    words = scripted.tokenizer(special=["<|stop|>"])
    ids = words.encode("ab<|stop|>")
    decoder = Decoder(words, stop=("<|stop|>",))
    assert [decoder.hits_stop(ids[:n]) for n in (1, 2, 3)] == [False, False, True]
    assert decoder.text(ids) == "ab"
    assert Decoder(words).text(ids) == "ab"


def test_end_ids():
    none = SimpleNamespace(eos_token_id=None)
    some = SimpleNamespace(eos_token_id=[3, 5])
    assert end_ids(SimpleNamespace(generation_config=some, config=none), none) == {3, 5}
    assert end_ids(SimpleNamespace(generation_config=some, config=SimpleNamespace(eos_token_id=7)), none) == {3, 5}
    assert end_ids(SimpleNamespace(generation_config=none, config=SimpleNamespace(eos_token_id=7)), none) == {7}
    assert end_ids(SimpleNamespace(config=none), Bytes()) == {256}
    # As in vLLM, the tokenizer's own end is one whatever the model names.
    assert end_ids(SimpleNamespace(generation_config=some, config=none), Bytes()) == {3, 5, 256}
    assert end_ids(SimpleNamespace(config=none), none) == frozenset()
