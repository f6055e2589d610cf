"""Documents of a retrofit: what is read, tokenised, counted and packed. And the parts that save memory."""

import json
from datetime import datetime

import architectures
import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet

from hyperscale.errors import RetrofitError
from hyperscale.retrofit import documents, losses
from hyperscale.retrofit.sources import text_files
from hyperscale.retrofit.sources.text_files import SUFFIXES
from hyperscale.retrofit.steps import optimizer
from hyperscale.utils.row_files import describe_left_out

TEXTS = [f"{i:02d} " + "abc " * (3 + i) for i in range(20)]


def build(tmp_path, entries, template=architectures.TEMPLATE, **changed):
    settings = {"length": 48, "window": 4, "training_tokens": 10**6, "seed": 0, "whole_chats": False} | changed
    texts = [text_files.TextEntry("x", entry) for entry in entries]
    tokenizer = architectures.tokenizer()
    tokenizer.chat_template = template
    return documents.build_corpus(text_files.TextSource(tmp_path, "x", texts), tokenizer, **settings)


def words(document):
    return architectures.tokenizer().decode(document.ids)


def test_every_document_is_packed_once_and_whole(tmp_path):
    corpus = build(tmp_path, TEXTS, length=128)
    assert len(corpus.train) + len(corpus.held_out) == 20
    texts = []
    for batch in documents.Corpus([], corpus.train).held_out_batches(4, 128):
        for row in range(4):
            for number in range(int(batch.document[row].max()) + 1):
                inside = batch.document[row] == number
                ids = batch.ids[row][inside]
                texts.append(architectures.tokenizer().decode(ids))
                assert batch.position[row][inside].tolist() == list(range(len(ids)))
                assert batch.weight[row][inside].tolist() == [1.0] * (len(ids) - 1) + [0.0]
                assert batch.kind[row][inside].tolist() == [0] * (len(ids) - 1) + [-1]
        padding = batch.document < 0
        assert batch.weight[padding].sum() == 0
        assert (batch.kind[padding] == -1).all()
    assert sorted(texts) == sorted(words(document) for document in corpus.train)


def test_a_long_text_is_split_and_nothing_of_it_is_lost(tmp_path):
    text = "".join(chr(97 + i % 26) for i in range(130))
    corpus = build(tmp_path, [text, "short but not too short"])
    parts = [words(document) for document in corpus.train + corpus.held_out]
    assert sorted(len(part.replace(architectures.END, "")) for part in parts) == [23, 34, 48, 48]


def test_only_the_last_reply_counts_and_thinking_is_kept_once(tmp_path):
    chat = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "<think>\nsecret</think>two"},
    ]
    corpus = build(tmp_path, [chat, chat], length=400)
    document = corpus.train[0]
    text = words(document)
    assert text == f"<|user|>one<|model|><think>\nsecret</think>two{architectures.END}"
    assert architectures.tokenizer().decode(document.ids[document.start :]) == f"secret</think>two{architectures.END}"
    whole = build(tmp_path, [chat, chat], length=400, whole_chats=True)
    assert whole.train[0].start == 1


@pytest.mark.parametrize(
    ("mark", "end"), [("[THINK]", "[/THINK]"), ("<thought>", "</thought>"), ("<think>", "</think>")]
)
def test_a_mark_that_the_template_opens_is_not_repeated(tmp_path, mark, end):
    chat = [{"role": "user", "content": "one"}, {"role": "assistant", "content": f"{mark}\nsecret{end}two"}]
    template = "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}<|model|>"
    opening = build(tmp_path, [chat, chat], template=template + mark, length=400)
    assert words(opening.train[0]) == f"<|user|>one<|model|>{mark}secret{end}two{architectures.END}"
    other = build(tmp_path, [chat, chat], template=template, length=400)
    assert words(other.train[0]) == f"<|user|>one<|model|>{mark}\nsecret{end}two{architectures.END}"


def test_a_template_that_fails_names_the_chat(tmp_path):
    chat = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    with pytest.raises(RetrofitError, match=r"^x: the model's chat template fails: no!"):
        build(tmp_path, [chat, chat], template="{{ raise_exception('no!') }}")


def test_a_template_that_writes_the_date_gives_the_tokens_of_the_date_of_the_beginning(tmp_path):
    chat = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    template = "{{ strftime_now('%d') }}" + architectures.TEMPLATE
    days = [datetime(2026, 2, day) for day in (3, 3, 4)]
    corpora = [build(tmp_path, [chat, chat], template=template, date=day) for day in days]
    assert words(corpora[0].train[0]).startswith("03<|user|>one")
    assert corpora[0].hash() == corpora[1].hash() != corpora[2].hash()


def test_chats_whose_prompt_fills_a_row_are_left_out_and_counted(tmp_path):
    def chat(asked):
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": "two"}]

    corpus = build(tmp_path, [chat("one")] * 3 + [chat("long " * 10)] * 2)
    line = "2 of 5 entries were left out: their prompts take a row of 48 tokens or more; pass a larger --length"
    assert (corpus.left_out, corpus.note) == (2, line)
    assert len(corpus.train) + len(corpus.held_out) == 3
    with pytest.raises(RetrofitError, match=r"nothing of .* is left to train on: 4 of 4 entries were left out: their"):
        build(tmp_path, [chat("long " * 10)] * 4)
    with pytest.raises(RetrofitError, match=r"pass at least two, since one is held out\. 1 of 2 entries were left out"):
        build(tmp_path, [chat("one"), chat("long " * 10)])
    ids = [text_files.TokenIds(list(range(60)), start) for start in (9, 20, 50)]
    assert build(tmp_path, ids).left_out == 1
    assert build(tmp_path, [chat("one")] * 2).note == ""


def test_a_long_document_is_left_to_train_on(tmp_path):
    """Only they lose tokens; the first one is held out."""
    short = [f"{i:02d}" for i in range(20)]
    with pytest.raises(
        RetrofitError, match=r"has 1 of 21 documents longer .* \(--window 4\), held out .* pass more long"
    ):
        build(tmp_path, [*short, TEXTS[0]])
    corpus = build(tmp_path, [*short, *TEXTS[:2]])
    assert max(len(document.ids) for document in corpus.train) > 6
    assert build(tmp_path, [*short, TEXTS[0]], joined=True).train


def test_no_more_is_tokenised_than_is_wanted(tmp_path):
    corpus = build(tmp_path, TEXTS * 10, training_tokens=300)
    assert 300 <= corpus.tokens + sum(len(document.ids) for document in corpus.held_out) < 420


def test_the_same_seed_gives_the_same_batches(tmp_path):
    corpus = build(tmp_path, TEXTS)
    first, again, other = (next(corpus.training_batches(2, 48, seed)).ids for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_all_kinds_of_files_are_read_in_order(tmp_path):
    parquet.write_table(pyarrow.table({"text": ["b"], "other": [1]}), tmp_path / "2.parquet")
    (tmp_path / "1.jsonl").write_text('{"text": "a"}\n\n')
    (tmp_path / "3.txt").write_text("c\nd")
    (tmp_path / "4.md").write_text("no")
    source = text_files.read_texts(tmp_path)
    assert (source.column, [entry.content for entry in source.entries]) == ("text", ["a", "b", "c\nd"])
    assert text_files.read_texts(tmp_path / "2.parquet", "other").entries[0].content == 1


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_loss_in_parts_is_the_loss(symmetric):
    torch.manual_seed(0)
    head, other = torch.nn.Linear(8, 20), torch.nn.Linear(8, 20)
    student = torch.randn(2, 15, 8, requires_grad=True)
    teacher, weight = torch.randn(2, 15, 8), (torch.rand(2, 15) > 0.3).float()
    whole = losses.distillation_loss(head(student), other(teacher).detach(), weight, symmetric)
    (expected,) = torch.autograd.grad(whole, student)
    parts = losses.distillation_loss_in_parts(student, teacher, head, other, weight, symmetric, part=4)
    (gradient,) = torch.autograd.grad(parts, student)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(gradient, expected)
    assert losses.distillation_loss_in_parts(student, teacher, head, other, 0 * weight).item() == 0


def test_stochastic_rounding_keeps_the_mean_and_small_steps_add_up():
    torch.manual_seed(0)
    value = torch.full((20000,), 0.02 + 2e-6)
    values = optimizer.round_stochastically(value)
    assert len(values.unique()) == 2
    assert values.float().mean().item() == pytest.approx(0.02 + 2e-6, rel=1e-4)
    weight = torch.nn.Parameter(torch.full((4000,), 0.02, dtype=torch.bfloat16))
    exact = torch.nn.Parameter(torch.full((4000,), 0.02))
    start = weight.float().mean().item()
    stochastic = optimizer.StochasticAdamW([{"params": [weight], "lr": 1e-5}])
    reference = torch.optim.AdamW([exact], lr=1e-5, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(50):
        for parameter, adam in ((weight, stochastic), (exact, reference)):
            parameter.grad = torch.ones_like(parameter)
            adam.step()
    assert weight.float().mean().item() - start == pytest.approx(exact.mean().item() - 0.02, rel=0.05)
    assert np.isclose(exact.mean().item(), 0.0195, atol=1e-5)


# --- documents that are tokenised already ---


def write_ids(tmp_path, rows):
    file = tmp_path / "self.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_files_without_rows_do_not_choose_the_column(tmp_path):
    (tmp_path / "1.jsonl").write_text("\n")
    parquet.write_table(pyarrow.table({"other": pyarrow.array([], pyarrow.string())}), tmp_path / "2.parquet")
    (tmp_path / "3.jsonl").write_text('{"text": "a"}\n')
    source = text_files.read_texts(tmp_path)
    assert (source.column, len(source.entries)) == ("text", 1)
    (tmp_path / "3.jsonl").unlink()
    with pytest.raises(RetrofitError, match="holds no rows"):
        text_files.read_texts(tmp_path)


@pytest.mark.parametrize("entry", [{"text": "a \ud83d"}, {"messages": [{"role": "user", "content": "\ud83d"}]}])
def test_half_a_character_is_named_with_its_place(tmp_path, entry):
    file = tmp_path / "texts.jsonl"
    file.write_text(json.dumps({next(iter(entry)): "whole \U0001f600"}) + "\n" + json.dumps(entry) + "\n")
    with pytest.raises(
        RetrofitError, match=r"texts.jsonl line 2 has half of a character \('\\ud83d', a lone surrogate\)"
    ):
        text_files.read_texts(file)


def test_a_chat_that_is_kept_as_text_is_refused(tmp_path):
    file = tmp_path / "texts.jsonl"
    chat = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    file.write_text(json.dumps({"messages": json.dumps(chat), "text": "[a]"}) + "\n")
    with pytest.raises(RetrofitError, match=r"line 1: messages holds the chat as a text of JSON: parse it .* --column"):
        text_files.read_texts(file)
    assert text_files.read_texts(file, "text").entries[0].content == "[a]"
    file.write_text(json.dumps({"messages": "[a] text"}) + "\n")
    assert text_files.read_texts(file).entries[0].content == "[a] text"


def test_the_loss_is_told_by_what_it_counts(tmp_path):
    chat = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    assert build(tmp_path, TEXTS).counts_all
    assert not build(tmp_path, [*TEXTS, chat]).counts_all
    assert build(tmp_path, [*TEXTS, chat], whole_chats=True).counts_all


def test_token_ids_are_taken_as_they_are(tmp_path):
    rows = [{"ids": list(range(i, i + 9)), "start": 1 + i % 3, "finish": "length"} for i in range(6)]
    source = text_files.read_texts(write_ids(tmp_path, [*rows, {"ids": [5, 6, 7, 8, 9, 10, 11]}]))
    tokenizer = architectures.tokenizer()
    corpus = documents.build_corpus(
        source, tokenizer, length=48, window=4, training_tokens=10**6, seed=0, whole_chats=False
    )
    found = {(tuple(document.ids.tolist()), document.start) for document in corpus.train + corpus.held_out}
    assert found == {(tuple(row["ids"]), row["start"]) for row in rows} | {((5, 6, 7, 8, 9, 10, 11), 1)}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"ids": "1 2 3"}, "line 2: ids must be a list of token ids"),
        ({"ids": [1, True]}, "line 2: ids must be a list of token ids"),
        ({"ids": [1, -2]}, "line 2: ids must be a list of token ids"),
        ({"ids": [1, 2], "start": 0}, "line 2: start is 0, and must be a whole number of at least 1"),
        ({"ids": [1, 10**6, 3]}, "line 2 has the token id 1000000, and the model's tokenizer has"),
    ],
)
def test_token_ids_of_no_sense_are_named(row, message, tmp_path):
    file = write_ids(tmp_path, [{"ids": list(range(9))}, row])
    with pytest.raises(RetrofitError, match=message):
        documents.build_corpus(
            text_files.read_texts(file), architectures.tokenizer(), length=48, window=4, training_tokens=10**6, seed=0,
            whole_chats=False,
        )  # fmt: skip


def test_what_a_folder_holds_besides_is_told(tmp_path):
    for name in ("a.txt", "b.md", "c.json", "d.md", ".hidden.md"):
        (tmp_path / name).write_text("text")
    (tmp_path / "more").mkdir()
    assert describe_left_out(tmp_path, SUFFIXES) == "3 files (.json, .md), 1 folder"
    assert describe_left_out(tmp_path / "a.txt", SUFFIXES) == ""
    for name in ("b.md", "c.json", "d.md"):
        (tmp_path / name).unlink()
    (tmp_path / "more").rmdir()
    assert describe_left_out(tmp_path, SUFFIXES) == ""
