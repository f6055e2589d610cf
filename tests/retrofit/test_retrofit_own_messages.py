"""Messages of users that the model writes itself before it answers them: ``--data self --prompts self``."""

import contextlib
import itertools
import json
from datetime import datetime
from pathlib import Path

import architectures
import commandline
import pytest
from huggingface_hub import constants

from hyperscale.engines.base import Request, Sampling
from hyperscale.errors import RetrofitError
from hyperscale.retrofit.sources import own_messages, own_texts
from hyperscale.retrofit.sources.own_messages import Turn, find_turn
from hyperscale.retrofit.sources.own_texts import OwnTextPlan, read_messages, write_own_texts

WORDS = architectures.tokenizer()
OPENING = WORDS("<|user|>", add_special_tokens=False)["input_ids"]
LENGTH = 96


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return architectures.write(tmp_path_factory.mktemp("own") / "model", "qwen2")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(own_texts, "BATCH", 8)


def write(base, folder, tokenizer=WORDS, **changes):
    """The texts of a folder and what was reported."""
    values = {"length": LENGTH, "tokens": 900, "seed": 0, "prompts": "self", "top_p": 0.95} | changes
    lines = []
    the_plan = OwnTextPlan(base=str(base), device="cpu", **values)
    return write_own_texts(the_plan, tokenizer, folder / "self.jsonl", lines.append), lines


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def unbroken(base, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_texts, "BATCH", 8)
        folder = tmp_path_factory.mktemp("unbroken")
        return folder, *write(base, folder)


def rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_each_message_is_answered_once(unbroken):
    folder, source, lines = unbroken
    documents = [entry.content for entry in source.entries]
    messages = read_messages(folder / "prompts.jsonl")
    assert len(set(messages)) == len(messages) >= len(documents)
    assert sum(len(document.ids) for document in documents) >= 900
    for message, document in zip(messages, documents, strict=False):
        asked = WORDS(f"<|user|>{message}<|model|><think>\n", add_special_tokens=False)["input_ids"]
        assert document.ids[: document.start] == asked
    # What was drawn is told apart from what can be answered, in the figures as in the files.
    drawn = rows(folder / "drawn.jsonl")
    figures = json.loads((folder / "self.json").read_text())
    unended = sum(not row["ended"] for row in drawn)
    assert figures["messages"] == f"{len(messages)} of {len(drawn)} that the model wrote can be answered"
    room = LENGTH // 2 - len(OPENING)
    assert figures["messages without an end"] == f"{unended / len(drawn):.1%} within {room} tokens"
    assert source.notes.items() >= figures.items()
    assert f"{len(drawn)} messages, of which {len(messages)} can be answered" in lines
    assert sum("writes 900 tokens in the" in line for line in lines) == 1  # one engine for both


def test_messages_are_drawn_as_the_texts_are_and_end_where_the_template_ends_them(unbroken, base):
    folder, *_ = unbroken
    drawn = rows(folder / "drawn.jsonl")
    plan = OwnTextPlan(str(base), "cpu", length=LENGTH, tokens=1, seed=0, prompts="self")
    _, engine = own_texts._start_engine(plan, 8, print)
    requests = [Request(f"ask/{i}", 0, tuple(OPENING), LENGTH // 2 - len(OPENING)) for i in range(len(drawn))]
    chains = {chain.problem: chain for chain in engine.generate(requests, Sampling(1.0, top_p=0.95, seed=0))}
    engine.close()
    model, end, user = WORDS.convert_tokens_to_ids(["<|model|>", "<|end|>", "<|user|>"])
    ends = set()
    for i, row in enumerate(drawn):
        ids = list(chains[f"ask/{i}"].token_ids)
        last = next((token for token in (model, end) if token in ids), None)
        text = ids[: ids.index(last)] if last else ids
        assert row["ended"] == (last is not None)
        assert row["message"] == WORDS.decode([token for token in text if token != user]).strip()
        ends.add(last)
    assert ends == {model, end, None}


def test_a_killed_run_goes_on_to_the_same_files(unbroken, base, tmp_path, monkeypatch):
    folder, source, _ = unbroken
    whole = contents(folder)
    seen = set()
    while not write_some(base, tmp_path, monkeypatch):
        seen.add(tuple(sorted(contents(tmp_path))))
        for name in ("drawn.jsonl", "self.jsonl"):  # a kill cuts lines off
            if (file := tmp_path / name).exists():
                file.write_bytes(file.read_bytes() + b'{"ids": [1, "a')
        if len(contents(tmp_path)["drawn.jsonl"]) % 2:  # and comes between two files
            (tmp_path / "prompts.jsonl").unlink()
    assert seen == {("drawn.jsonl", "prompts.jsonl"), ("drawn.jsonl", "prompts.jsonl", "self.jsonl")}
    assert contents(tmp_path) == whole
    # What is there is enough: no engine is started.
    monkeypatch.setattr(own_texts, "_start_engine", None)
    again, _ = write(base, tmp_path)
    assert contents(tmp_path) == whole
    assert [entry.content for entry in again.entries] == [entry.content for entry in source.entries]


class Killed(BaseException):
    """Nothing catches it."""


def write_some(base, folder, monkeypatch):
    """Write until the engine is called for the second time; tells whether that never happened."""
    start = own_texts._start_engine

    def begin(*parts):
        name, engine = start(*parts)
        generate, calls = engine.generate, itertools.count()

        def fail_later(*arguments):
            if next(calls):
                raise Killed
            return generate(*arguments)

        engine.generate = fail_later
        return name, engine

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(own_texts, "_start_engine", begin)
        write(base, folder)
        return True
    return False


def test_the_messages_serve_as_a_file_of_prompts(unbroken, base, tmp_path):
    folder, *_ = unbroken
    write(base, tmp_path, prompts=folder / "prompts.jsonl")
    assert (tmp_path / "self.jsonl").read_bytes() == (folder / "self.jsonl").read_bytes()


def test_answers_without_their_messages_are_not_gone_on_with(unbroken, base, tmp_path):
    folder, *_ = unbroken
    (tmp_path / "self.jsonl").write_bytes((folder / "self.jsonl").read_bytes())
    with pytest.raises(
        RetrofitError, match=r"drawn.jsonl has 0 messages that can be answered, and \d+ have been: bring"
    ):
        write(base, tmp_path)


@pytest.mark.parametrize(
    ("tokens", "draws", "length", "text"),
    [
        (1, {}, LENGTH, r"\d+ did not end within 1 tokens, .*; draw from less, as with --own-top-p 0.95, or pass"),
        (200, {"temperature": 0.01}, 8, r"did not end within 3 tokens, .*; pass a larger --length, half of which"),
    ],
)
def test_a_model_that_writes_no_new_messages_is_not_asked_for_ever(
    base, tmp_path, monkeypatch, tokens, draws, length, text
):
    monkeypatch.setattr(own_messages, "PATIENCE", 40)
    monkeypatch.setattr(own_messages, "MESSAGE_TOKENS", tokens)
    with pytest.raises(RetrofitError, match=rf"of the last 40 that the model wrote \d are new: .*{text}"):
        write(base, tmp_path, length=length, **draws)
    drawn = (tmp_path / "drawn.jsonl").read_bytes()
    assert 40 <= len(rows(tmp_path / "drawn.jsonl")) < 40 + 8 + 8
    with pytest.raises(RetrofitError, match="of the last 40"):  # nor by the same command
        write(base, tmp_path, length=length, **draws)
    assert (tmp_path / "drawn.jsonl").read_bytes() == drawn


def test_a_model_that_repeats_its_messages_is_to_be_drawn_from_more_widely(base, tmp_path, monkeypatch):
    monkeypatch.setattr(own_messages, "PATIENCE", 40)
    line = json.dumps({"message": "hi", "ended": True}) + "\n"
    (tmp_path / "drawn.jsonl").write_text(line * 41)
    with pytest.raises(RetrofitError, match=r"0 are new: .*40 were there before, .*; draw from more, with a higher"):
        write(base, tmp_path)


def test_messages_that_are_there_or_do_not_fit_are_counted_and_not_answered(tmp_path):
    said = [("hi", True), ("hi", True), ("", True), ("on and", False), ("long " * 30, True)]
    lines = (json.dumps({"message": text, "ended": ended}) + "\n" for text, ended in [*said, ("ho", True)])
    (tmp_path / "drawn.jsonl").write_text("".join(lines))
    messages = own_messages.OwnMessages(tmp_path, WORDS, LENGTH, Sampling())
    assert read_messages(tmp_path / "prompts.jsonl") == ["hi", "ho"]
    assert len(messages.prompts) == 2
    assert messages.summarise()["messages there before"] == "16.7%"
    assert messages.summarise()["messages without an end"].startswith("16.7% within")
    assert messages.summarise()["messages empty or too long"] == "33.3%"


def test_what_a_template_puts_around_a_message_is_found():
    words = architectures.tokenizer()
    assert find_turn(words) == Turn(tuple(OPENING), WORDS.convert_tokens_to_ids("<|model|>"))
    words.chat_template = "<|user|>{{ messages[0]['content'] }} [/INST]"
    assert find_turn(words) == Turn(tuple(OPENING), stop="[/INST]")
    words.chat_template = "<|user|>{{ messages[0]['content'] }}"
    assert find_turn(words) == Turn(tuple(OPENING))
    words.chat_template = None
    assert find_turn(words) == Turn(())


def test_messages_are_asked_and_answered_on_the_day_of_the_beginning(tmp_path):
    words = architectures.tokenizer()
    words.chat_template = "{{ strftime_now('%d') }}" + architectures.TEMPLATE
    day = datetime(2026, 2, 3)
    assert words.decode(find_turn(words, day).opening) == "03<|user|>"
    (tmp_path / "drawn.jsonl").write_text(json.dumps({"message": "hi", "ended": True}) + "\n")
    messages = own_messages.OwnMessages(tmp_path, words, LENGTH, Sampling(), day)
    assert words.decode(messages.prompts[0]).startswith("03<|user|>hi")
    plan = OwnTextPlan("m", "cpu", LENGTH, tokens=1, seed=0, prompts=tmp_path / "prompts.jsonl", date=day)
    assert own_texts.read_prompts(plan, words) == messages.prompts
    plan = OwnTextPlan("m", "cpu", LENGTH, tokens=1, seed=0, prompts=None, date=day)
    assert own_texts.read_prompts(plan, words) == [find_turn(words, day).opening]


def test_messages_end_before_a_text_too(base, tmp_path):
    """A template without tokens of its own behind the message: the text that it has there ends one."""
    words = architectures.tokenizer()
    words.chat_template = "<|user|>{{ messages[0]['content'] }}e"
    write(base, tmp_path, words, tokens=100)
    ended = [row["message"] for row in rows(tmp_path / "drawn.jsonl") if row["ended"]]
    assert ended
    assert not any("e" in message for message in ended)


def test_a_model_without_an_opening_is_told_what_to_do(base, tmp_path):
    for template, text in (
        (None, "the model has none: pass --prompts FILE, or leave --prompts out"),
        ("{{ messages[0]['content'] }}<|model|>", "the model's has nothing in front of a message: pass --prompts FILE"),
        ("<|user|>" * 50 + "{{ messages[0]['content'] }}", "takes 50 before they begin; pass a larger --length"),
    ):
        words = architectures.tokenizer()
        words.chat_template = template
        with pytest.raises(RetrofitError, match=text):
            write(base, tmp_path, words)


@pytest.mark.e2e
def test_a_retrofit_on_chats_of_the_model_alone_goes_on_and_records_them(base, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    call = commandline.caller(monkeypatch, capsys, tmp_path)
    options = {
        "--cr": 2, "--steps-per-unit": 4, "--hard-steps": 0, "--window": 4, "--length": 64, "--recipe": "adapters",
        "--accumulate": 2, "--device": "cpu", "--data": "self", "--prompts": "self", "--own-tokens": 600,
        "--packing": "joined",
    }  # fmt: skip
    command = ["retrofit", "--model", base, "--out", "made", *(part for pair in options.items() for part in pair)]
    code, _, err = call(*command, "--length", 128, "--dry-run", "--gpu", "h200")
    assert (code, err) == (0, "")
    assert not Path("made").exists()
    with monkeypatch.context() as patch:
        patch.setattr(own_texts, "_generate", lambda *_: (_ for _ in ()).throw(RetrofitError("no engine now")))
        commandline.fails(call(*command), "no engine now")
    assert Path("made/data/prompts.jsonl").exists()
    Path("self").mkdir()
    Path("self/asked.txt").write_text("one\n")
    commandline.fails(call(*command, "--prompts", "./self"), "--prompts was self and is now ./self")
    code, out, _ = call(*command)
    record = json.loads(Path("made/training.json").read_text())
    assert record["data"]["messages"] in out
    assert record["settings"]["prompts"] == "self"
    assert record["loss"] == "last reply"
    assert record["data"]["messages"].endswith("that the model wrote can be answered")
    made = next(path for path in Path("made").iterdir() if path.name.endswith("dms2"))
    assert f"| data: messages | {record['data']['messages']} |" in (made / "README.md").read_text()
