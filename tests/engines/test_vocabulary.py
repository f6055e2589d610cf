"""Only tokens are drawn: neither rows that pad the output layer nor ids that the tokenizer leaves out."""

import json

import architectures
import pytest
import tiny
import torch
from transformers import AutoTokenizer

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.kvpress.engine import KVPressEngine
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.engines.vocabulary import Vocabulary

END_ID, ROWS = 300, 320
REQUESTS = [Request("p", chain, (70, 71), 400) for chain in range(12)]


class Listed:
    def __init__(self, ids):
        self.ids = ids

    def __len__(self):
        return len(self.ids)

    def get_vocab(self):
        return {str(i): i for i in self.ids}


@pytest.mark.parametrize(
    ("ids", "output_rows", "ends", "rows", "unused"),
    [
        (range(10), 10, (), 10, ()),
        (range(10), 16, (), 10, ()),  # padded
        (range(12), 10, (), 10, ()),  # more tokens than rows
        ([0, 1, 2, 7], 10, (7,), 8, (3, 4, 5, 6)),
        ([0, 1, 2], 10, (5,), 6, (3, 4)),  # an end that the configuration names alone
        ([0, 1, 2], 10, (99,), 3, ()),  # one that no row stands for
        ([1, 2], 3, (), 3, (0,)),
    ],
)
def test_rows(ids, output_rows, ends, rows, unused):
    found = Vocabulary(Listed(ids), output_rows, ends)
    assert (found.rows, found.unused) == (rows, unused)
    logits = torch.zeros(2, output_rows)
    drawable = found.drawable(logits)
    assert drawable.shape == (2, rows)
    assert set(drawable[0].isinf().nonzero().ravel().tolist()) == set(unused)
    assert logits.eq(0).all()


def test_a_tokenizer_that_lists_nothing_has_the_ids_up_to_its_length():
    found = Vocabulary(tiny.Characters(12), 16)
    assert (found.rows, found.unused) == (12, ())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint whose end token lies beyond the number of tokens, in a padded output layer."""
    path = tmp_path_factory.mktemp("gap")
    words = architectures.tokenizer(END_ID)
    tiny.model("qwen3", vocab=ROWS, eos=END_ID, seed=3).save_pretrained(path)
    words.save_pretrained(path)
    return path


def test_the_tokenizer_has_a_gap(folder):
    words = AutoTokenizer.from_pretrained(folder)
    assert words.eos_token_id == END_ID > len(words)


@pytest.mark.parametrize("engine", ["torch", "kvpress"])
def test_an_end_beyond_a_gap_is_drawn_and_nothing_in_the_gap_is(folder, engine):
    model, words = load_model(folder)
    with torch.no_grad():
        model.lm_head.weight.mul_(0.2)  # flat: every row is drawn sooner or later
    if engine == "torch":
        made = TorchEngine(model, words, methods.create("vanilla", cr=1), batch_size=4)
    else:
        made = KVPressEngine(model, words, methods.create("kvpress:DecodingPress:KeyDiffPress", cr=1))
    requests = REQUESTS if engine == "torch" else REQUESTS[:3]
    chains = list(made.generate(requests, Sampling(temperature=2.0, repetition_penalty=1.01)))
    drawn = [token for chain in chains for token in chain.token_ids]
    tokens = set(words.get_vocab().values())
    assert set(drawn) <= tokens
    assert any(chain.finish == "stop" and chain.token_ids[-1] == END_ID for chain in chains)


def test_several_ends(folder, tmp_path):
    """All that the checkpoint's generation_config names, and the tokenizer's own."""
    path = tmp_path / "ends"
    model, words = load_model(folder)
    model.save_pretrained(path)
    words.save_pretrained(path)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [40, 41]}))
    model, words = load_model(path)
    with torch.no_grad():
        model.lm_head.weight.mul_(0.2)
    engine = TorchEngine(model, words, methods.create("vanilla", cr=1), batch_size=64)
    made = [Request("p", chain, (70, 71), 2000) for chain in range(64)]
    chains = list(engine.generate(made, Sampling(temperature=2.0)))
    assert {chain.token_ids[-1] for chain in chains if chain.finish == "stop"} == {40, 41, END_ID}
    assert not any({40, 41, END_ID} & set(chain.token_ids[:-1]) for chain in chains)
