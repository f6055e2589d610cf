"""Likelihood under compression, against transformers and full attention under masks, on tiny random checkpoints."""

import json
from random import Random

import architectures
import dense_reference
import numpy as np
import pytest
import torch
from recorded_steps import RECORDED, RecordedCalls
from transformers import AutoModelForCausalLM

import hyperscale as hs
from hyperscale import methods
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import ConfigError
from hyperscale.likelihood.documents import cut_documents
from hyperscale.likelihood.full_cache import FullCache
from hyperscale.likelihood.measurement import Watcher
from hyperscale.likelihood.scoring import TokenScores, score_documents
from hyperscale.likelihood.stored_scores import StoredScores
from hyperscale.likelihood.summary import estimate, split_positions
from hyperscale.methods.arm import Arm
from hyperscale.mini.problems.aime import generate
from hyperscale.models import resolve
from hyperscale.utils.hub import load_tokenizer

LENGTH = 72
#: Every method that runs on any model, without those that evict nothing whatever they are asked.
COMPRESSING = [
    name for name in methods.available() if name != "vanilla" and methods.registry.retrofit_kind(name) is None
]


def sentences(count, seed=0):
    rng = Random(seed)
    return " ".join("".join(rng.choices("abcdefghij", k=rng.randint(2, 7))) for _ in range(count))


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    (folder / "one.txt").write_text(sentences(70))
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": sentences(20, seed)}) + "\n" for seed in (1, 2)))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return architectures.write(tmp_path_factory.mktemp("model") / "gated", "qwen3", gates=True)


def measure(files, model, **settings):
    return hs.loglik(files, model=str(model), length=LENGTH, device="cpu", **settings)


def by_transformers(model, ids):
    """(tokens - 1, vocabulary) float64 log-probabilities of one forward pass."""
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)


@pytest.mark.parametrize(("family", "prompt"), [("qwen3", 1), ("granite", 9)])
def test_the_full_cache_scores_as_transformers_does(family, prompt, texts, tmp_path):
    """Both ways: all tokens at once, which is the reference, and token by token through the cache."""
    folder = architectures.write(tmp_path / family, family)
    found = measure(texts, folder, method="vanilla", prompt_tokens=prompt, batch_size=4)
    scores = found.scores[Arm("vanilla", 1.0)]
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    documents = cut_documents([texts], load_tokenizer(str(folder)), length=LENGTH).chosen
    assert len(documents) == len(scores.nats) >= 5  # more than a batch
    for number, document in enumerate(documents):
        logprobs = by_transformers(plain, document.ids).gather(1, torch.tensor(document.ids[1:])[:, None])[:, 0]
        wanted = -logprobs[prompt - 1 :].numpy()
        assert found.full_nats[number] == pytest.approx(wanted, abs=1e-4)
        assert scores.nats[number] == pytest.approx(wanted, abs=1e-4)
    assert scores.kl.max() < 1e-5
    assert np.array_equal(scores.kept, np.tile(scores.full, (len(documents), 1)))
    assert found.arms.loc[0, "realised_cr"] == found.arms.loc[0, "read_ratio"] == 1


def test_a_ratio_of_1_changes_nothing(texts, checkpoint):
    found = measure(texts / "rows.jsonl", checkpoint, method=COMPRESSING, cr=1)
    assert list(found.arms["method"]) == COMPRESSING
    assert len(COMPRESSING) >= 10
    for scores in found.scores.values():
        assert scores.kl.max() < 1e-5
        assert scores.nats == pytest.approx(scores.full_nats, abs=1e-4)
        assert (scores.kept == scores.full).all()
        assert (scores.reads == scores.full_reads).all()


def test_dms_is_full_attention_under_its_mask(texts, checkpoint):
    """Nats and KL of every position, from logits that another implementation computes."""
    found = measure(texts / "rows.jsonl", checkpoint, method="dms", cr=8, prompt_tokens=5)
    (scores,) = found.scores.values()
    model, tokenizer = load_model(checkpoint)
    for number, document in enumerate(cut_documents([texts / "rows.jsonl"], tokenizer, length=LENGTH).chosen):
        with torch.inference_mode():
            logits, _, _ = dense_reference.forward(model, list(document.ids), dense_reference.dms(model))
        ours, full = logits[:-1].double().log_softmax(-1), by_transformers(model, document.ids)
        kl = (full.exp() * (full - ours)).sum(-1)[4:]
        nats = -ours.gather(1, torch.tensor(document.ids[1:])[:, None])[4:, 0]
        assert scores.kl[number] == pytest.approx(kl.numpy(), abs=1e-4)
        assert scores.nats[number] == pytest.approx(nats.numpy(), abs=1e-3)
    assert scores.kl.mean() > 0.01  # the gates did evict
    assert found.arms.loc[0, "realised_cr"] > 1.2


def test_batches_and_recorded_steps_change_nothing(texts, checkpoint):
    model, tokenizer = load_model(checkpoint)
    documents = cut_documents([texts], tokenizer, length=LENGTH).chosen
    reference = FullCache(model, documents)
    for name in ("tova", "dms"):
        found = []
        for batch_size, static in ((1, None), (4, None), (4, RECORDED)):
            engine = TorchEngine(model, tokenizer, methods.create(name, cr=4.0), batch_size=batch_size)
            engine.static = static
            found.append(score_documents(engine, documents, reference, 3))
        assert RecordedCalls.latest.replays > 50
        for other in found[1:]:
            assert np.array_equal(found[0].nats, other.nats)
            assert np.array_equal(found[0].kept, other.kept)
            assert np.array_equal(found[0].reads, other.reads)
            # The full cache's distribution is made again of a batch of its own size.
            assert other.kl == pytest.approx(found[0].kl, abs=1e-5)


class Computed(Watcher):
    """What was computed, and how much was found."""

    def __init__(self):
        self.arms, self.stored = [], 0

    def on_arm(self, name, tokens):
        self.arms.append(name)

    def on_stored(self, count):
        self.stored = count


def test_a_measurement_goes_on_with_what_its_folder_has(texts, checkpoint, tmp_path):
    def measured(**changes):
        watcher = Computed()
        asked = {"method": ["random", "tova"], "cr": [2, 4], **changes}
        return measure(texts / "rows.jsonl", checkpoint, out=tmp_path, watcher=watcher, **asked), watcher

    first, watcher = measured(method=["tova"], cr=[4])
    assert (watcher.arms, watcher.stored) == (["full cache", "tova 4×"], 0)
    second, watcher = measured()
    assert (watcher.arms, watcher.stored) == (["full cache", "random 2×", "random 4×", "tova 2×"], 1)
    assert list(second.arms["method"]) == ["random", "random", "tova", "tova"]  # in the order that was asked for
    assert np.array_equal(second.scores[Arm("tova", 4.0)].nats, first.scores[Arm("tova", 4.0)].nats)
    again, watcher = measured(batch_size=1)
    assert (watcher.arms, watcher.stored) == ([], 4)
    assert again.summary()["arms"] == second.summary()["arms"]
    assert again.full == second.full
    # A file that was cut off is none; another text, length, parameter or seed is another measurement.
    for file in (tmp_path / "scores").iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    assert measured()[1].stored == 0
    assert measured(method_param={"tova": {"per": "head"}})[1].stored == 2
    assert measured(prompt_tokens=3)[1].stored == 0
    other, watcher = measured(seed=1)
    assert watcher.stored == 0
    # The seed draws what is evicted at random, and nothing else.
    for arm, changes in ((Arm("random", 4.0), True), (Arm("tova", 4.0), False)):
        assert np.array_equal(other.scores[arm].nats, second.scores[arm].nats) is not changes


def test_the_ratio_is_the_one_that_was_asked_for(texts, checkpoint):
    """Budgets that grow with the position, or one for the whole document; a rounding up and recent entries aside."""
    recent = {name: {"recent": 1} for name in ("window", "random")}
    names = ["tova", "h2o", "window", "random", "streaming"]
    asked = {"method": names, "cr": 4, "method_param": recent, "model": str(checkpoint), "device": "cpu"}
    growing = hs.loglik(texts / "one.txt", length=200, **asked)
    error = growing.arms["realised_cr"] / growing.arms["CR"] - 1
    assert error.between(-0.05, 0).all(), growing.arms
    assert growing.arms["read_ratio"].to_numpy() == pytest.approx(growing.arms["realised_cr"], rel=0.01)
    fixed = hs.loglik(texts / "one.txt", length=200, rule="fixed", **{**asked, "method": names[:2], "method_param": {}})
    assert (fixed.positions.query("position == 199")["kept"] == 50).all()
    assert fixed.arms["realised_cr"].max() < 2.5
    (tokens,) = measure(
        texts / "one.txt", checkpoint, method="tova", method_param={"tova": {"budget": 20}}
    ).arms.to_dict("records")
    assert (tokens["kv_budget"], tokens["CR"]) == (20, 1)
    assert tokens["realised_cr"] > 1.5


def test_random_eviction_loses_what_learned_eviction_keeps(tmp_path):
    """The negative control, on the built-in model's own chains of thought, which look back at what was computed."""
    tokenizer, rng = load_tokenizer(resolve("mini", "vanilla", 1).path), Random(0)
    file = tmp_path / "chains.jsonl"
    chains = [tokenizer.decode(generate(rng).ids()[0][:160]) for _ in range(10)]
    file.write_text("".join(json.dumps({"text": chain}) + "\n" for chain in chains))
    settings = {"length": 160, "prompt_tokens": 64, "device": "cpu"}
    learned = hs.loglik(file, method="dms", cr=4, **settings).arms.loc[0]
    control = hs.loglik(
        file, method="random", cr=2, method_param={"random": {"pin_prompt": False}}, **settings
    ).arms.loc[0]
    assert learned["realised_cr"] > control["realised_cr"] > 1.5
    assert learned["above_full_high"] + 0.5 < control["above_full_low"]
    assert learned["kl_high"] + 0.5 < control["kl_low"]


def test_documents_are_pieces_of_one_length(texts, tmp_path):
    tokenizer = architectures.tokenizer()
    (tmp_path / "short.md").write_text("no")
    files = [texts, tmp_path / "short.md"]
    found = cut_documents(files, tokenizer, length=50)
    assert {len(document.ids) for document in found.chosen} == {50}
    assert found.short == 1
    assert found.found == len(found.chosen)
    text = (texts / "one.txt").read_text()
    own = [tokenizer.decode(document.ids) for document in found.chosen if document.name.startswith(f"{texts}/one.txt")]
    assert "".join(own) == text[: len(text) // 50 * 50]
    few = [cut_documents(files, tokenizer, length=50, documents=4, seed=seed).chosen for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]
    assert all(document in found.chosen for document in few[0])
    # A beginning of a sequence that the tokenizer adds begins every piece.
    tokenizer.add_special_tokens({"bos_token": "<|user|>"})
    start = tokenizer.bos_token_id
    tokenizer.encode = lambda text, add_special_tokens: [start] * add_special_tokens + list(text.encode())
    begun = cut_documents([texts / "one.txt"], tokenizer, length=50).chosen
    assert [document.ids[0] for document in begun] == [start] * len(begun)
    assert bytes(begun[1].ids[1:]) == text.encode()[49:98]


def test_scores_that_a_crash_left_empty_are_none(tmp_path):
    stored = StoredScores(tmp_path)
    scores = TokenScores(*(np.zeros(2) for _ in range(6)), full_reads=3.0)
    stored.store({"method": "tova"}, scores)
    assert stored.load({"method": "tova"}).full_reads == 3
    (path,) = (tmp_path / "scores").iterdir()
    path.write_bytes(b"")
    assert stored.load({"method": "tova"}) is None


def test_hidden_files_and_folders_are_left_alone(tmp_path):
    root = tmp_path / ".texts"  # named by the user, so wanted
    for name in (".git", "part", "part/.ipynb_checkpoints"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in (".git/config.txt", "part/one.txt", "part/.ipynb_checkpoints/one.txt", "part/.two.txt"):
        (root / name).write_text("word " * 30)
    found = cut_documents([root], architectures.tokenizer(), length=50).chosen
    assert {document.name.split(" #")[0] for document in found} == {str(root / "part" / "one.txt")}


def test_what_the_tokenizer_cannot_write_is_told(tmp_path):
    tokenizer = load_tokenizer(resolve("mini", "vanilla", 1).path)
    (tmp_path / "own.txt").write_text("1+2=3;\n" * 20)
    (tmp_path / "greek.txt").write_text("1+λ=3;\n" * 20)
    assert cut_documents([tmp_path / "own.txt"], tokenizer, length=50).unknown == 0
    lacking = cut_documents([tmp_path / "greek.txt"], tokenizer, length=50)
    assert 0.05 < lacking.unknown < 0.5
    tokenizer.eos_token = tokenizer.unk_token  # as tokenizers of bytes have it
    assert cut_documents([tmp_path / "greek.txt"], tokenizer, length=50).unknown == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt_tokens": LENGTH}, "leaves nothing to score"),
        ({"method": "tova,tova"}, "--method names something twice"),
        ({"cr": 0.5}, "--cr must be at least 1"),
        ({"lenth": 5}, "did you mean 'length'"),
        ({"method_param": {"h2o": {"heavy": 1}}}, "none of --method window"),
        ({"method": "kvpress:KnormPress"}, "runs in the kvpress engine"),
        ({"documents": 0}, "--documents must be at least 1"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, message, texts, checkpoint):
    with pytest.raises(ConfigError, match=message):
        hs.loglik(texts, **{"model": str(checkpoint), "length": LENGTH, "device": "cpu", **settings})


def test_texts_that_cannot_be_scored_are_refused(texts, checkpoint, tmp_path):
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00\x01")
    for name, row in (
        ("rows", {"words": "a"}),
        ("chats", {"messages": [{"role": "user", "content": "a"}]}),
        ("lists", {"text": [{"role": "user", "content": "a"}]}),
        ("nulls", {"text": None}),
        ("numbers", {"text": 5}),
    ):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "table.csv").write_text("text,label\na,1\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing.txt").touch()
    for file, message in (
        (tmp_path / "none.txt", "no file or folder"),
        (tmp_path / "bytes.txt", r"bytes.txt cannot be read as text .*: take it out of the folder"),
        (tmp_path / "table.csv", "would be scored with its quotes and commas: convert it to JSONL"),
        (tmp_path / "empty", "empty: no text in it"),
        (tmp_path / "nothing.txt", "no text in it"),
        (tmp_path / "rows.jsonl", "line 1 has no column text, only words: rename the column that has the text"),
        (tmp_path / "chats.jsonl", "line 1 holds a chat: write it as one text in a column text"),
        (tmp_path / "lists.jsonl", "line 1 holds a chat"),
        (tmp_path / "nulls.jsonl", "line 1 has nothing in its column text: leave the row out"),
        (tmp_path / "numbers.jsonl", "line 1 has no text in its column text"),
    ):
        with pytest.raises(ConfigError, match=message):
            measure(file, checkpoint)
    with pytest.raises(ConfigError, match="no text has 4,000 tokens; the longest has"):
        hs.loglik(texts, model=str(checkpoint), length=4000, device="cpu")


def test_buckets_and_intervals():
    buckets = split_positions(1, 512)
    assert (buckets[0].first, buckets[-1].last, len(buckets)) == (1, 511, 8)
    assert [b.first for b in buckets[1:]] == [b.last + 1 for b in buckets[:-1]]
    assert len(split_positions(1, 4)) == 3
    values = np.random.default_rng(0).normal(1.0, 0.5, 40)
    mean, low, high = estimate(values)
    assert mean == pytest.approx(values.mean())
    # As a normal interval says, about.
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 40**0.5, rel=0.15)
    assert np.isnan(estimate(values[:9]).low)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_comparing_waits_for_nothing(texts, checkpoint, monkeypatch):
    from hyperscale.likelihood import scoring

    model, tokenizer = load_model(checkpoint, device="cuda")
    documents = cut_documents([texts], tokenizer, length=LENGTH).chosen
    reference, calls = FullCache(model, documents), scoring._Comparison.observe

    def strict(self, *arguments):
        torch.cuda.set_sync_debug_mode("error")
        try:
            calls(self, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(scoring._Comparison, "observe", strict)
    engine = TorchEngine(model, tokenizer, methods.create("vanilla", cr=1), batch_size=4, device="cuda")
    assert score_documents(engine, documents, reference, 3).kl.max() < 1e-4
