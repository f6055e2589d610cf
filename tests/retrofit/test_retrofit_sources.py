"""Where training texts come from: data sets of the hub with the paper's filter, and the model itself."""

import json
from datetime import datetime

import architectures
import commandline
import pyarrow
import pytest
import torch
from huggingface_hub import constants
from pyarrow import parquet

from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.torch.provider import TorchProvider
from hyperscale.errors import EngineError, RetrofitError
from hyperscale.retrofit.documents import Corpus
from hyperscale.retrofit.packing import TokenizedDocument, collate
from hyperscale.retrofit.sources import hub_texts, own_texts
from hyperscale.retrofit.sources.own_texts import OwnTextPlan, write_own_texts
from hyperscale.retrofit.sources.text_files import read_texts

#: Rows as open-r1/OpenR1-Math-220k has them, all its columns.
COLUMNS = {
    "problem": "What is 1 + 1?",
    "solution": "It is 2.",
    "answer": "2",
    "problem_type": "Algebra",
    "question_type": "math-word-problem",
    "source": "olympiads",
    "uuid": "0",
    "is_reasoning_complete": [True, True, False],
    "generations": ["<think>\nright\n</think>2", "<think>\nwrong\n</think>3", "<think>\ncut off 2"],
    "correctness_math_verify": [True, False, True],
    "correctness_llama": [True, True, True],
    "finish_reasons": ["stop", "stop", "length"],
    "correctness_count": 2,
    "messages": [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "<think>other</think>2"},
    ],
}


def data_set(folder, rows):
    folder.mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")
    return f"hub:{folder}"


def fetch(name, tmp_path, column=None, tokens=10**6, length=8192, report=print):
    return hub_texts.fetch_hub_texts(name, column, tokens, length, tmp_path / "data" / "hub.jsonl", report)


def test_of_openr1_only_complete_traces_that_verify_are_taken(tmp_path):
    """Through the streaming of `datasets`: one right trace of the first row, none of the second and
    of one without verdicts, two of the last."""
    none = COLUMNS | {"correctness_math_verify": [False] * 3}
    both = COLUMNS | {"problem": "And 2 + 0?", "correctness_math_verify": [True, True, True]}
    unknown = COLUMNS | {"correctness_math_verify": None, "messages": [{"role": "user", "content": "unverified"}]}
    source = fetch(data_set(tmp_path / "set", [COLUMNS, none, unknown, both]), tmp_path)
    chats = [[message["content"] for message in entry.content] for entry in source.entries]
    assert chats == [
        ["What is 1 + 1?", COLUMNS["generations"][0]],
        ["And 2 + 0?", COLUMNS["generations"][0]],
        ["And 2 + 0?", COLUMNS["generations"][1]],
    ]
    assert source.column == "messages"


def test_of_chats_that_are_cut_the_part_that_is_trained_on_counts(tmp_path):
    chat = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "because " * 1000}]
    name = data_set(tmp_path / "chats", [{"messages": chat}] * 50)
    for length, count in ((8192, 3), (256, 12)):  # 3,000 tokens, for which 18,000 characters count
        source = fetch(name, tmp_path / str(length), tokens=3000, length=length)
        assert len(source.entries) == count


def test_other_data_sets_give_their_chats_or_texts_and_no_more_than_is_needed(tmp_path):
    texts = [{"text": "abc " * 30, "other": 1}] * 50
    source = fetch(data_set(tmp_path / "texts", texts), tmp_path, tokens=40)
    assert [entry.content for entry in source.entries] == ["abc " * 30] * 2
    # The file stands for the data set from then on: the same command goes on without a network.
    assert len(fetch("hub:nobody/nothing", tmp_path).entries) == 2
    (tmp_path / "data" / "hub.jsonl").unlink()
    assert (
        fetch(data_set(tmp_path / "named", [COLUMNS]), tmp_path, "messages").entries[0].content[1]["content"][7:12]
        == "other"
    )


def test_data_sets_that_cannot_be_used_say_why_and_leave_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    uneven = COLUMNS | {"correctness_math_verify": [True]}
    for name, text in (
        (data_set(tmp_path / "fields", [{"question": "a", "reply": "b"}]), "row 1 has no column messages or text, nor"),
        (data_set(tmp_path / "uneven", [uneven]), "3 generations, 1 verdicts in correctness_math_verify"),
        (data_set(tmp_path / "wrong", [COLUMNS | {"correctness_math_verify": [False] * 3}]), "nothing in it passes"),
        (f"hub:{tmp_path / 'nowhere'}", "cannot be read .*--data self"),
    ):
        with pytest.raises(RetrofitError, match=text):
            fetch(name, tmp_path)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_chat_of_a_data_set_that_is_kept_as_text_is_refused(tmp_path):
    with pytest.raises(RetrofitError, match="row 1: messages holds the chat as a text of JSON"):
        fetch(data_set(tmp_path / "set", [{"messages": json.dumps(COLUMNS["messages"])}]), tmp_path)


def test_half_a_character_of_a_data_set_leaves_its_entry_out(tmp_path, monkeypatch):
    """Who reads a data set of the hub cannot mend it."""
    chats = [[{"role": "user", "content": text}] for text in ("b", "\ud83d")]
    for name, rows, kept in (
        ("texts", [{"text": "a"}, {"text": "\ud83d"}, {"text": "b"}], ["a", "b"]),
        ("chats", [{"messages": chat} for chat in chats], chats[:1]),
    ):
        monkeypatch.setattr(hub_texts, "_stream_rows", lambda _, rows=rows: iter(rows))
        told = []
        source = fetch("hub:x/y", tmp_path / name, report=told.append)
        assert [entry.content for entry in source.entries] == kept
        assert told == ["1 entry of hub:x/y left out: half of a character (a lone surrogate) in the text"]


def test_rows_without_a_text_are_left_out_of_a_data_set_and_named_in_a_file(tmp_path):
    told = []
    source = fetch(data_set(tmp_path / "set", [{"text": None}, {"text": "a"}]), tmp_path, report=told.append)
    assert [entry.content for entry in source.entries] == ["a"]
    assert told == [f"1 entry of hub:{tmp_path / 'set'} left out: no text in it (null)"]
    for name, rows, line in (("first", [None, "a"], 1), ("later", ["a", None], 2)):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
        with pytest.raises(RetrofitError, match=rf"line {line} has nothing in its column text \(null\): drop the row"):
            read_texts(file)


def test_of_messages_only_role_and_content_are_kept(tmp_path):
    """Data sets keep times beside them, which JSON does not know."""
    messages = [message | {"timestamp": datetime(2024, 1, 1)} for message in COLUMNS["messages"]]
    name = data_set(tmp_path / "set", [{"conversation": messages, "written": datetime(2024, 1, 1)}])
    (entry,) = fetch(name, tmp_path, column="conversation").entries
    assert entry.content == COLUMNS["messages"]
    with pytest.raises(RetrofitError, match=r"row 1: written holds no text and no chat \(datetime\): pass --column"):
        fetch(name, tmp_path / "other", column="written")


# --- what the model writes ---


def plan(base, **changes):
    values = {"device": "cpu", "length": 40, "tokens": 3000, "seed": 0, "prompts": None} | changes
    return OwnTextPlan(base=str(base), **values)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return architectures.write(tmp_path_factory.mktemp("own") / "model", "qwen2")


def write(the_plan, file, monkeypatch=None):
    lines = []
    source = write_own_texts(the_plan, architectures.tokenizer(), file, lines.append)
    return source, lines


def test_own_documents_fill_rows_and_a_resumed_file_is_the_unbroken_one(base, tmp_path, monkeypatch):
    monkeypatch.setattr(own_texts, "BATCH", 16)
    source, lines = write(plan(base, tokens=1200), tmp_path / "a" / "self.jsonl")
    whole = (tmp_path / "a" / "self.jsonl").read_bytes()
    # The template's opening, and then whole rows: ends of sequences do not end a document.
    assert {len(entry.content.ids) for entry in source.entries} == {40}
    opening = architectures.tokenizer()("<|user|>", add_special_tokens=False)["input_ids"]
    assert all(entry.content.ids[: len(opening)] == opening for entry in source.entries)
    assert any(architectures.tokenizer().eos_token_id in entry.content.ids[:-1] for entry in source.entries)
    assert {entry.content.start for entry in source.entries} == {len(opening)}
    assert len(source.entries) == 30  # 1,200 tokens in batches of 16, and no document more
    figures = json.loads((tmp_path / "a" / "self.json").read_text())
    distinct = {tuple(entry.content.ids) for entry in source.entries}
    assert figures["duplicates"] == f"{1 - len(distinct) / 30:.1%} of 30 documents"
    assert figures["lengths"].startswith(f"{40 - len(opening)} to {40 - len(opening)} tokens written")
    assert any("duplicates" in line for line in lines)
    # A kill in the middle of the second batch's line.
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "self.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:16]) + b'{"ids": [1, ')
    write(plan(base, tokens=1200), tmp_path / "b" / "self.jsonl")
    assert (tmp_path / "b" / "self.jsonl").read_bytes() == whole
    # What is there is enough: no engine is started.
    monkeypatch.setattr(own_texts, "_start_engine", None)
    again, _ = write(plan(base, tokens=1200), tmp_path / "b" / "self.jsonl")
    assert again.entries[5].content == source.entries[5].content


def test_a_gpu_writes_as_many_documents_at_a_time_as_their_caches_have_room_for(base, monkeypatch):
    gib = 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gib, 2 * gib))
    assert own_texts._batch_size(plan(base, device="cuda")) == 1024  # a tiny model
    assert own_texts._batch_size(plan(base, device="cuda", length=10**9)) == 16
    smollm2, qwen_32b = 2 * 2 * 64 * 3 * 30, 2 * 2 * 128 * 8 * 64  # bytes of an entry in bfloat16
    assert own_texts.count_documents(0.4 * 140 * gib, smollm2 * 4096) == 512
    assert own_texts.count_documents(0.4 * 140 * gib, smollm2 * 1024) == 1024
    assert own_texts.count_documents(0.4 * 75 * gib, qwen_32b * 8192) == 16
    assert own_texts.count_documents(-gib, smollm2) == 16


def test_an_engine_that_does_not_start_leaves_it_to_the_torch_engine(base, monkeypatch):
    class Full(TorchProvider):
        name = "vllm"

        def build(self, spec, weights):
            raise EngineError("vLLM does not start: no memory is left")

    monkeypatch.setattr(own_texts, "_choose_provider", lambda spec: Full())
    lines = []
    name, engine = own_texts._start_engine(plan(base), 2, lines.append)
    engine.close()
    assert name == "torch"
    assert lines == ["vLLM does not start: no memory is left. The torch engine writes instead"]


def test_prompts_are_answered_once_each_and_their_answers_count(base, tmp_path, monkeypatch):
    monkeypatch.setattr(own_texts, "BATCH", 4)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "one"}\n{"problem": "two"}\n')
    source, _ = write(plan(base, tokens=60, prompts=prompts), tmp_path / "self.jsonl")
    words = [architectures.tokenizer().decode(entry.content.ids[: entry.content.start]) for entry in source.entries]
    asked = ["<|user|>one<|model|><think>\n", "<|user|>two<|model|><think>\n"]
    assert words == [asked[number % 2] for number in range(len(words))]
    # Other prompts are not gone on with.
    prompts.write_text('{"prompt": "one"}\n{"problem": "three"}\n')
    with pytest.raises(RetrofitError, match=r"document 2 of .* answers another prompt"):
        write(plan(base, tokens=600, prompts=prompts), tmp_path / "self.jsonl")
    # As many tokens as were asked for, and not a batch of documents more.
    assert 60 <= sum(len(entry.content.ids) for entry in source.entries) < 60 + 40
    for entry in source.entries:
        assert len(entry.content.ids) <= 40
    # The noise is that of the seed and the document's number, not of the batch.
    name, engine = own_texts._start_engine(plan(base), 1, print)
    assert name in ("torch", "vllm")
    entry = source.entries[1].content
    request = Request("own/1", 0, tuple(entry.ids[: entry.start]), 40 - entry.start)
    (chain,) = engine.generate(iter([request]), Sampling(temperature=1.0, top_p=1.0, seed=0))
    engine.close()
    assert [*chain.token_ids] == entry.ids[entry.start :]
    for contents, text in (
        ('{"other": 1}\n', "has no text in a column prompt"),
        ("", "holds no prompts"),
        ('{"prompt": "%s"}\n' % ("long " * 30), "has .* tokens and a row 40"),
    ):
        prompts.write_text(contents)
        with pytest.raises(RetrofitError, match=text):
            write(plan(base, prompts=prompts), tmp_path / "other.jsonl")


def test_prompts_of_a_text_file_are_its_lines_in_utf_8(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\u2028two\x0cthree\n\nGröße?\r\n", encoding="utf-8")
    assert own_texts.read_messages(prompts) == ["one\u2028two\x0cthree", "Größe?"]
    prompts.write_bytes("Größe?\n".encode("latin-1"))
    with pytest.raises(RetrofitError, match=r"prompts.txt cannot be read: 'utf-8' codec"):
        own_texts.read_messages(prompts)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "\\ud83d"}\n')
    with pytest.raises(RetrofitError, match=r"prompts.jsonl line 1 has half of a character"):
        own_texts.read_messages(prompts)


# --- packing ---


def test_texts_are_drawn_as_asked_for(base, tmp_path):
    the_plan = plan(base, tokens=40, temperature=0.7, top_p=0.4, seed=3)
    source, _ = write(the_plan, tmp_path / "self.jsonl")
    entry = source.entries[0].content
    _, engine = own_texts._start_engine(the_plan, 1, print)
    request = Request("own/0", 0, tuple(entry.ids[: entry.start]), 40 - entry.start)
    (chain,) = engine.generate(iter([request]), Sampling(temperature=0.7, top_p=0.4, seed=3, ignore_ends=True))
    engine.close()
    assert [*chain.token_ids] == entry.ids[entry.start :]
    assert write(plan(base, tokens=40, seed=3), tmp_path / "other.jsonl")[0].entries[0].content != entry


def test_loops_are_told_by_the_share_of_repeated_runs():
    loop = {"ids": [0, *[1, 2] * 9], "start": 1, "finish": "length"}  # 11 runs of 8, 2 distinct
    fresh = {"ids": list(range(19)), "start": 1, "finish": "length"}
    assert own_texts.summarise([loop])["repeated"].startswith("81.8% of runs of 8 tokens")
    assert own_texts.summarise([loop, fresh])["repeated"].startswith("40.9%")
    assert own_texts.summarise([{"ids": [1, 2], "start": 1, "finish": "stop"}])["repeated"].startswith("0.0%")


def test_joined_documents_are_one_to_attention_and_the_loss_counts_the_same():
    import numpy as np

    row = [TokenizedDocument(np.arange(5, dtype=np.int32), 2), TokenizedDocument(np.arange(7, dtype=np.int32), 1)]
    apart, joined = collate([row], 16), collate([row], 16, joined=True)
    assert joined.position[0].tolist() == [*range(12), *[0] * 4]
    assert joined.document[0].tolist() == [0] * 12 + [-1] * 4
    assert joined.kind[0].tolist() == [0] * 11 + [-1] * 5
    assert joined.weight.equal(apart.weight)
    assert joined.ids.equal(apart.ids)
    corpus = Corpus(row * 4, row, joined=True)
    assert int(next(corpus.training_batches(1, 16, 0)).document.max()) == 0


@pytest.mark.e2e
def test_a_retrofit_on_what_the_model_writes_goes_on_and_records_it(base, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    call = commandline.caller(monkeypatch, capsys, tmp_path)
    options = {
        "--cr": 2, "--steps-per-unit": 48, "--hard-steps": 2, "--window": 4, "--length": 64, "--rows": 2,
        "--accumulate": 2, "--gate-lr": 3, "--device": "cpu", "--data": "self", "--own-tokens": 5000,
        "--packing": "joined",
    }  # fmt: skip
    command = ["retrofit", "--model", base, "--out", "made", *(part for pair in options.items() for part in pair)]

    def end_in_batch(number):
        """The command, ended while it gets its texts."""
        generate = own_texts._generate

        def fail(*parts):
            if parts[-1][0] == number * own_texts.BATCH:
                raise RetrofitError("no engine now")
            return generate(*parts)

        with monkeypatch.context() as patch:
            patch.setattr(own_texts, "_generate", fail)
            return call(*command)

    commandline.fails(end_in_batch(0), "no engine now")
    commandline.fails(end_in_batch(1), "no engine now")
    commandline.fails(call(*command, "--seed", 1), "--seed was 0 and is now 1")
    code, out, err = call(*command)
    assert (code, err) == (0, "")
    assert "duplicates: " in out
    record = json.loads((tmp_path / "made" / "training.json").read_text())
    assert record["data"]["path"] == "self"
    assert record["documents"]["tokens"] > 4000
    assert record["loss"] == "all tokens"
    assert (
        f"| data: duplicates | {record['data']['duplicates']} |"
        in (tmp_path / "made" / "dms2" / "README.md").read_text()
    )
    commandline.fails(call(*command, "--prompts", "x", "--data", "y"), "--prompts was unset")
