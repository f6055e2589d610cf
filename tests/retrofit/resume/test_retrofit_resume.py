"""A training that was left and taken up again is the training that was not, and loses nothing on the way."""

import errno
import fcntl
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import datetime

import architectures
import commandline
import pytest
import torch
from checkpoints import SMALL
from huggingface_hub import constants
from repository import ROOT
from signalled_retrofit import SIGNALLED

from hyperscale.errors import RetrofitError
from hyperscale.mini.model import build_model
from hyperscale.retrofit.job import run_retrofit
from hyperscale.retrofit.packing import TrainingBatch
from hyperscale.retrofit.reporting.metrics_file import read_metrics
from hyperscale.retrofit.resume import begun, state_file
from hyperscale.retrofit.resume.folder_lock import hold_folder
from hyperscale.retrofit.resume.state_parts import StateParts
from hyperscale.retrofit.settings import Recipe, RetrofitSettings
from hyperscale.retrofit.trainer import Retrofit

RECIPE = Recipe(crs=(2.0, 3.0), steps_per_unit=4, hard_steps=(3,), window=4, accumulate=2, gate_lr=3e-3, fade_steps=3)
SIGNAL = signal.signal  # which the caller of the command line takes away
TEXT = "The search goes on from here, and each step names what it found before it turns back. "


def batch(seed):
    ids = torch.randint(0, 64, (2, 32), generator=torch.Generator().manual_seed(seed))
    position = torch.arange(32).expand(2, 32).contiguous()
    kind = torch.zeros_like(ids)
    kind[:, -1] = -1
    return TrainingBatch(ids, position, torch.zeros_like(ids), kind, (kind >= 0).float())


def batches():
    return map(batch, itertools.count())


def make(recipe, dtype=None, report=lambda _: None):
    return Retrofit(build_model(0, **SMALL, initializer_range=0.06), recipe, report=report, dtype=dtype)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@contextmanager
def full_disk(room=20_000):
    """No file may be longer than so many bytes: writing beyond fails, as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), SIGNAL(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        SIGNAL(signal.SIGXFSZ, handler)


def finish(training):
    return [(made.steps, made.tokens, made.log, weights(made.model)) for made in training.run(batches())]


class StopError(Exception):
    pass


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({}, None),
        ({}, torch.bfloat16),
        ({"gate": "borrowed"}, None),
        ({"method": "dmc"}, None),
        ({"train": "gates", "hard_steps": (0,)}, None),
        ({"train": "gates", "finish": "soft"}, None),
        ({"train": "lora", "lora_rank": 4}, None),
    ],
    ids=["separate", "bfloat16", "borrowed", "dmc", "gates alone", "gates, soft", "low-rank updates"],
)
def test_a_training_left_after_any_step_goes_on_bit_for_bit(tmp_path, changes, dtype):
    recipe = RECIPE.changed(**changes)
    unbroken = finish(make(recipe, dtype))
    # One process a stretch of steps, each from the file that the last one left: fade, noise, both hard phases.
    steps, made, left = itertools.cycle((1, 3, 2)), {}, 0
    while left < recipe.total_steps:
        training = make(recipe, dtype)
        if state := state_file.read_state(tmp_path):
            training.load_state_dict(state)
            assert training.steps_done == left
        stop_at = left + next(steps)

        def leave(training=training, stop_at=stop_at):
            if training.steps_done == stop_at:
                state_file.write_state(tmp_path, training.state_dict())
                torch.rand(5)  # what follows the state must not count
                raise StopError

        training.after_step = leave
        try:
            for student in training.run(batches()):
                made[student.cr] = student.steps, student.tokens, student.log, weights(student.model)
        except StopError:
            left = stop_at
        else:
            break
    assert list(made) == [2.0, 3.0]
    for (*counts, expected), (*other_counts, found) in zip(unbroken, made.values(), strict=True):
        assert counts == other_counts
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_loss_that_is_not_finite_stops_before_it_is_kept(tmp_path):
    training = make(RECIPE)
    training.after_step = lambda: (training.require_finite(), state_file.write_state(tmp_path, training.state_dict()))

    def spoil():
        for number, whole in enumerate(batches()):
            if number == 7:  # of the fourth step
                with torch.no_grad():
                    training.gated.model.model.norm.weight[0] = float("nan")
            yield whole

    with pytest.raises(RetrofitError, match=r"NaN or infinite by step 4 \(noisy phase\).*lower --lr"):
        list(training.run(spoil()))
    state = state_file.read_state(tmp_path)
    assert state["place"]["steps_done"] == 3
    assert all(tensor.isfinite().all() for tensor in state["weights"].values())


def test_a_full_disk_leaves_the_last_state(tmp_path):
    training, lines = make(RECIPE), []
    state = training.state_dict() | {"log": ["first"]}
    state_file.write_state(tmp_path, state)
    with full_disk():
        assert not state_file.save_or_warn(tmp_path, training.state_dict(), lines.append)
    assert "free some room; the last one stays" in lines[0]
    assert state_file.read_state(tmp_path)["log"] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_damaged_state_is_named(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"PK not a state")
    with pytest.raises(RetrofitError, match=r"state\.pt cannot be read .*remove it to begin again"):
        state_file.read_state(tmp_path)


def test_a_folder_is_held_by_one_and_left_as_it_was(tmp_path):
    out, lines = tmp_path / "below" / "out", []
    with hold_folder(out, lines.append):
        assert [path.name for path in out.iterdir()] == [".lock"]
        with pytest.raises(RetrofitError, match="another retrofit is writing to"), hold_folder(out, lines.append):
            pass
        (out / "training.json").touch()
    assert [path.name for path in out.iterdir()] == ["training.json"]
    (out / ".lock").touch()  # as a kill leaves it
    with hold_folder(out, lines.append):
        pass
    with hold_folder(tmp_path / "new" / "out", lines.append):
        pass
    assert not (tmp_path / "new").exists()
    assert not lines


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lines = []
    with hold_folder(tmp_path / "out", lines.append):
        assert lines == [f"note: {tmp_path}/out cannot be locked (No locks available): start no other retrofit there"]


# --- the command ---

OPTIONS = {
    "--cr": "2,3", "--steps-per-unit": 24, "--hard-steps": 4, "--window": 4, "--length": 64, "--rows": 2,
    "--accumulate": 2, "--gate-lr": 3, "--lr": "1e-3", "--device": "cpu",
}  # fmt: skip


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return commandline.caller(monkeypatch, capsys, tmp_path)


def arguments(folder, out, **changes):
    given = OPTIONS | {"--model": folder / "model", "--data": folder / "texts.jsonl", "--out": out}
    given |= {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return ["retrofit", *(str(part) for pair in given.items() for part in pair)]


@pytest.mark.e2e
def test_a_killed_command_goes_on_and_a_different_one_is_refused(call, tmp_path):
    architectures.write(tmp_path / "model", "qwen3")
    lines = [json.dumps({"text": TEXT[i:]}) + "\n" for i in range(12)]
    (tmp_path / "texts.jsonl").write_text("".join(lines))
    code, _, err = call(*arguments(tmp_path, "whole"))
    assert code == 0, err

    # A disk that is full from the beginning: neither the state nor the checkpoint is written, and no half is left.
    with full_disk():
        commandline.fails(call(*arguments(tmp_path, "full")), "dms2 could not be written", "the same command goes on")
    assert {path.name for path in (tmp_path / "full").iterdir()} - {"tensorboard"} == {"training.json", "metrics.jsonl"}

    # Gates alone have no hard phase: their state, which is small, is kept before the checkpoint all the same.
    gates = arguments(tmp_path, "gates", recipe="adapters", hard_steps=0)
    with full_disk(60_000):
        commandline.fails(call(*gates), "dms2 could not be written")
    assert state_file.read_state(tmp_path / "gates")["place"]["steps_done"] == 24

    def end_after(steps):
        """The command in a process of its own, to which SIGTERM comes in the middle of a step."""
        program = [sys.executable, "-c", SIGNALLED, str(steps), *arguments(tmp_path, "broken")]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "interrupted: " in done.stderr
        assert "the same command goes on" in done.stderr
        kept = state_file.read_state(tmp_path / "broken")["place"]
        assert kept["steps_done"] == steps + 1
        return kept

    end_after(10)
    kept = end_after(40)  # past the first checkpoint
    assert (kept["ratio"], (tmp_path / "broken" / "dms2").exists()) == (1, True)

    # What is not the same training is refused, and nothing is touched.
    for changes, text in (
        ({"lr": "2e-3"}, "--lr was 0.001 and is now 0.002"),
        ({"cr": "2,4", "seed": 1}, "--cr was 2,3 and is now 2,4; --seed was 0 and is now 1"),
    ):
        commandline.fails(call(*arguments(tmp_path, "broken", **changes)), "other settings", text, "another --out")
    (tmp_path / "texts.jsonl").write_text("".join(lines[::-1]))
    commandline.fails(call(*arguments(tmp_path, "broken")), "the data have changed")
    (tmp_path / "texts.jsonl").write_text("".join(lines))
    (tmp_path / "model").rename(tmp_path / "own")
    architectures.write(tmp_path / "model", "qwen2")
    found = "model is not the model that the retrofit in broken was begun with"
    commandline.fails(call(*arguments(tmp_path, "broken")), found)
    shutil.rmtree(tmp_path / "model")
    (tmp_path / "own").rename(tmp_path / "model")
    assert state_file.read_state(tmp_path / "broken")["place"] == kept

    code, out, err = call(*arguments(tmp_path, "broken"))
    assert (code, err) == (0, "")
    assert f"going on after {kept['steps_done']} of 56 steps" in out
    for name in ("dms2", "dms3"):
        expected, found = ((tmp_path / out / name / "model.safetensors").read_bytes() for out in ("whole", "broken"))
        assert expected == found
    records = [json.loads((tmp_path / out / "training.json").read_text()) for out in ("whole", "broken")]
    for record in records:
        assert record["finished"] is True
        for made in record["dms"]:
            assert made.pop("seconds") > 0
    assert records[0]["dms"] == records[1]["dms"]
    assert not (tmp_path / "broken" / "state.pt").exists()
    (tmp_path / "broken" / "state.pt").write_bytes(b"left by a kill")
    lines = [
        [line for line in read_metrics(tmp_path / out) if line["step"] % 25 == 0 or line["step"] == 1]
        for out in ("whole", "broken")
    ]  # others are there on a machine so slow that 30 s pass; and the last one
    assert all(read_metrics(tmp_path / out)[-1]["done"] == 56 for out in ("whole", "broken"))
    timeless = [
        [[value for key, value in line.items() if not key.endswith(("seconds", "second", "left"))] for line in each]
        for each in lines
    ]
    assert timeless[0] == timeless[1]
    assert [line["done"] for line in lines[0]] == [1, 25, 29, 54]
    first = lines[0][0]
    assert first["target"] > first["saved"][0]
    assert first["loss"] == pytest.approx(first["kl"] + first["target"] - first["saved"][0], abs=1e-5)
    code, out, err = call(*arguments(tmp_path, "broken"))
    assert (code, err) == (0, "")
    assert "is complete" in out
    assert not (tmp_path / "broken" / "state.pt").exists()


@pytest.mark.e2e
def test_a_retrofit_on_chats_goes_on_the_next_day(call, tmp_path, monkeypatch):
    """Its template writes the date, which is that of the beginning."""
    folder = architectures.write(tmp_path / "model", "qwen3")
    (folder / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }}" + architectures.TEMPLATE)
    chat = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": TEXT}]
    (tmp_path / "texts.jsonl").write_text((json.dumps({"messages": chat}) + "\n") * 6)

    def on_day(day):
        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return cls(2026, 2, day)

        monkeypatch.setattr(begun, "datetime", Clock)
        return call(*arguments(tmp_path, "made", cr="2"))

    with monkeypatch.context() as patch:
        patch.setattr(Retrofit, "run", lambda *_: (_ for _ in ()).throw(RetrofitError("ended")))
        commandline.fails(on_day(3), "ended")
    code, _, err = on_day(4)
    assert (code, err) == (0, "")
    assert json.loads((tmp_path / "made" / "training.json").read_text())["date"] == "2026-02-03T00:00:00"


def test_texts_that_were_got_before_a_training_began_keep_its_date(tmp_path):
    sources = tmp_path / begun.SOURCES
    sources.mkdir()
    (sources / "self.jsonl").write_text("")
    (sources / begun.SOURCES_SETTINGS).write_text(json.dumps({"seed": 0, "date": "2026-02-03T00:00:00"}))
    assert begun.find_date(tmp_path, None) == datetime(2026, 2, 3)
    (sources / begun.SOURCES_SETTINGS).write_text(json.dumps({"seed": 0}))  # of a version that kept none
    assert begun.find_date(tmp_path, None).date() == datetime.now().date()
    (sources / begun.SOURCES_SETTINGS).write_text(json.dumps({"seed": 0, "date": "soon"}))
    with pytest.raises(RetrofitError, match="date 'soon' is no date"):
        begun.find_date(tmp_path, None)


@pytest.mark.e2e
def test_a_command_holds_its_folder_while_it_trains(call, tmp_path, monkeypatch):
    architectures.write(tmp_path / "model", "qwen3")
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": TEXT[i:]}) + "\n" for i in range(12)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").touch()  # as a kill leaves it, before anything else is written
    given, second, step = {"cr": 2, "steps_per_unit": 2}, [], Retrofit._step

    def call_again(self, *parts, **named):
        if not second:
            second.append(None)
            settings = RetrofitSettings.from_options(
                {
                    "model": str(tmp_path / "model"),
                    "data": str(tmp_path / "texts.jsonl"),
                    "out": tmp_path / "out",
                    "device": "cpu",
                }
            )
            with pytest.raises(RetrofitError) as refused:
                run_retrofit(settings, lambda _: None)
            second[0] = str(refused.value)
        step(self, *parts, **named)

    monkeypatch.setattr(Retrofit, "_step", call_again)
    code, _, err = call(*arguments(tmp_path, "out", **given))
    assert (code, err) == (0, "")
    assert second == [
        f"another retrofit is writing to {tmp_path / 'out'}: wait for it or end it, or pass another --out"
    ]
    assert not list((tmp_path / "out").rglob(".lock"))


@pytest.mark.e2e
def test_a_training_that_is_killed_once_all_is_written_is_complete(call, tmp_path, monkeypatch):
    """Its state may be large, so that removing it takes a while."""
    architectures.write(tmp_path / "model", "qwen3")
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": TEXT[i:]}) + "\n" for i in range(12)))
    asked = arguments(tmp_path, "out", cr=2)

    def kill(self):
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(StateParts, "remove", kill)
        with pytest.raises(RuntimeError, match="killed"):
            call(*asked)
    assert state_file.read_state(tmp_path / "out") is not None
    weights = tmp_path / "out" / "dms2" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    code, out, err = call(*asked)
    assert (code, err) == (0, "")
    assert "is complete" in out
    assert weights.stat().st_mtime_ns == written
    assert not (tmp_path / "out" / state_file.STATE).exists()
