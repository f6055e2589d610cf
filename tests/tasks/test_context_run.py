"""Context tasks in a run: lengths as tasks of their own, points, another grading, plans, mistakes."""

import json
from pathlib import Path

import architectures
import commandline
import pandas as pd
import pytest

from hyperscale.errors import ConfigError, TaskError
from hyperscale.run.config import load, resolve
from hyperscale.tasks.context.kinds import HiddenLines


def resolved(**values):
    return resolve.resolve_config(load.make_config({"model": "mini", "methods": ["vanilla"], **values}))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return architectures.write(tmp_path_factory.mktemp("model") / "qwen3", "qwen3")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


def test_each_length_is_a_task_of_its_own(tmp_path):
    config = resolved(
        tasks=["niah_single", "vt", "cwe@2000", "mini_aime"],
        context=[1024, 512],
        data={"niah_single": str(tmp_path)},
        task_params={"vt": {"hops": "2"}, "vt@512": {"hops": "3"}},
    )
    full = ["niah_single@1024", "niah_single@512", "vt@1024", "vt@512", "cwe@2000", "mini_aime"]
    assert list(config.tasks) == full
    assert config.data == dict.fromkeys(full[:2], str(tmp_path))
    assert config.task_params == {"vt@1024": {"hops": "2"}, "vt@512": {"hops": "3"}}
    assert resolved(tasks=["vt"]).tasks == ("vt@4096",)
    # One task's data are all its lengths' data.
    assert list(resolved(tasks=["vt"], context=[512, 1024], data={"": "text.txt"}).data) == ["vt@512", "vt@1024"]


@pytest.mark.parametrize("specific_first", [True, False])
def test_what_is_said_of_a_task_holds_at_all_its_lengths(specific_first):
    said = [("vt", {"hops": "2", "chains": "3"}), ("vt@512", {"hops": "5"})]
    data = [("vt", "/all.txt"), ("vt@0512", "/one.txt")]
    config = resolved(
        tasks=["vt", "vt@0512", "vt@256"],
        context=[512, 1024],
        task_params=dict(said[:: -1 if specific_first else 1]),
        data=dict(data[:: -1 if specific_first else 1]),
    )
    assert config.tasks == ("vt@512", "vt@1024", "vt@256")
    assert config.task_params == {
        "vt@512": {"hops": "5", "chains": "3"},
        "vt@1024": {"hops": "2", "chains": "3"},
        "vt@256": {"hops": "2", "chains": "3"},
    }
    assert config.data == {"vt@512": "/one.txt", "vt@1024": "/all.txt", "vt@256": "/all.txt"}
    with pytest.raises(ConfigError, match="cwe"):
        resolved(tasks=["vt@512"], task_params={"cwe": {"common": "2"}})


def test_context_tasks_are_asked_greedily_unless_told_otherwise():
    assert resolved(tasks=["vt"]).temperature == 0
    assert "greedy" in resolved(tasks=["vt"]).sampling_sources["temperature"]
    assert resolved(tasks=["vt"], temperature=0.5).temperature == 0.5
    assert resolved(tasks=["vt", "mini_aime"]).temperature == resolved(tasks=["mini_aime"]).temperature > 0


def test_a_greedy_problem_has_one_chain():
    """All others would be the same, but for a method that draws."""
    assert resolved(tasks=["vt"], methods=["tova"]).grid.widths == (1,)
    assert len(resolved(tasks=["vt"], methods=["tova"], temperature=0.5).grid.widths) > 1
    assert len(resolved(tasks=["vt"], methods=["random"]).grid.widths) > 1
    assert len(resolved(tasks=["mini_aime"], temperature=0).grid.widths) > 1


def test_lengths_of_prompts_need_a_task_that_has_them():
    with pytest.raises(ConfigError, match="as vt@512 does: leave one out"):
        resolved(tasks=["vt@512"], context=[1024])
    with pytest.raises(ConfigError, match=r"--context is for tasks .*niah_single.* mini_aime is none"):
        resolved(tasks=["mini_aime"], context=[512])
    with pytest.raises(TaskError, match=r"did you mean 'niah_single'\?"):
        resolved(tasks=["niah_singl"], context=[512])


def test_a_run_at_two_lengths(run, checkpoint, tmp_path):
    command = ["--model", checkpoint, "--task", "niah_single,vt", "--context", "600,900", "--length", "6", "--limit", 2]
    command += ["--method", "vanilla,streaming", "--cr", 2, "--budget", "1x", "--no-pin-prompt"]
    commandline.fails(run("run", *command[:5], "99", *command[6:], "--dry-run"), "needs prompts of at least")
    code, out, _ = run("run", *command, "--dry-run")
    assert code == 0
    assert "vt@900" in out
    assert not (tmp_path / "results").exists()
    code, out, err = run("run", *command, "--out", "r")
    assert code == 0, err
    points = pd.read_csv("r/points.csv")
    # A prompt may lack a token of its length; the base point is within 1x all the same.
    assert "No point of vanilla is within" not in out
    assert set(zip(points.task, points.context, strict=True)) == {
        (f"{name}@{context}", context) for name in ("niah_single", "vt") for context in (600, 900)
    }
    assert (points.retained[points.method == "vanilla"] == 100).all()
    assert points.retained[points.method == "streaming"].between(45, 55).all()
    samples = [json.loads(line) for line in (tmp_path / "r" / "samples.jsonl").read_text().splitlines()]
    # A token is a byte here, so a prompt is as long as it was to be but for its last word.
    for sample in samples:
        assert 0 <= int(sample["task"].split("@")[1]) - sample["prompt_tokens"] < 30
    # The prompts are made again, and are the same.
    assert run("score", "r")[0] == 0
    assert run("report", "r")[0] == 0
    assert run("plot", "r", "--format", "png,svg,csv", "--resamples", 100)[0] == 0
    assert Path("r/accuracy-retained.png").stat().st_size > 10_000
    drawn = pd.read_csv("r/accuracy-retained.csv")
    assert len(drawn) == len(drawn.drop_duplicates(["task", "method"])) == 8
    # What a length is kept at costs what it holds.
    reads = points[points.W == 1].set_index(["method", "task"]).peak_kv
    assert reads["vanilla", "vt@900"] > 1.3 * reads["vanilla", "vt@600"]
    assert reads["streaming", "vt@900"] < 0.7 * reads["vanilla", "vt@900"]


@pytest.fixture
def retrofitted(tmp_path):
    """A model with its retrofit beside it."""
    folder = tmp_path / "model"
    architectures.write(folder / "base", "qwen3")
    architectures.write(folder / "dms8", "qwen3", gates=True)
    return folder


SHORT = ("--task", "vt@600", "--limit", 2, "--budget", "1x", "--length", 6, "--cr", 8)


def test_prompts_are_made_again_by_the_tokenizer_that_made_them(run, retrofitted):
    """That of the base has a longer template, so its texts would be shorter."""
    words = architectures.tokenizer()
    words.chat_template = "{{ 'Answer briefly. ' }}" + architectures.TEMPLATE
    words.save_pretrained(retrofitted / "base")
    code, _, err = run("run", "--model", retrofitted, "--method", "dms", *SHORT, "--out", "r")
    assert code == 0, err
    code, _, err = run("score", "r")
    assert code == 0, err


def test_checkpoints_that_read_other_tokens_are_refused(run, retrofitted, tmp_path):
    file = retrofitted / "base" / "tokenizer.json"
    words = json.loads(file.read_text())
    ids = words["model"]["vocab"]
    ids["e"], ids["t"] = ids["t"], ids["e"]
    file.write_text(json.dumps(words))
    told = run("run", "--model", retrofitted, "--method", "vanilla,dms", *SHORT, "--out", "r")
    commandline.fails(told, "dms8 writes prompts in other tokens", "folders of their own")
    assert not (tmp_path / "r").exists()


def test_mistakes_end_in_a_line(run, checkpoint):
    command = ["--model", checkpoint, "--budget", "1x", "--length", "6", "--out", "r"]
    commandline.fails(run("run", *command, "--task", "vt@99"), "vt@99 needs prompts of at least", "--context")
    commandline.fails(run("run", *command, "--task", "vt@x"), "number of tokens")
    commandline.fails(run("run", *command, "--task", "vt", "--context", "0"), "context")
    commandline.fails(run("run", *command, "--task", "vt", "--task-param", "vt.hop=3"), "no parameter 'hop'", "hops")
    rare = ("cwe.common_times=3", "more often")
    commandline.fails(run("run", *command, "--task", "cwe", "--task-param", rare[0]), rare[1])
    for name in ("depth=0.5", "haystack=filler"):
        told = run("run", *command, "--task", "cwe", "--task-param", f"cwe.{name}")
        commandline.fails(told, f"no parameter '{name.partition('=')[0]}'", "it has: common, common_times")
    text = Path("text.txt")
    text.write_text("It is a text. " * 100)
    for mode in ((), ("--dry-run",)):
        told = run("run", *command, "--task", "cwe", "--context", 3000, "--data", text, *mode)
        commandline.fails(told, "cwe@3000", "leave --data")
    commandline.fails(run("run", "--model", "mini", "--task", "vt", "--budget", "1x"), "mini")
    for mode in ((), ("--dry-run",)):  # it has characters for the tasks that are its own
        told = run(
            "run", "--model", "mini", "--task", "vt", "--context", "900", "--budget", "1x", "--length", "8", *mode
        )
        commandline.fails(told, "problem vt-0-0", "tokenizer cannot write", "take another model or task")


def test_prompts_beyond_the_models_context_are_refused_before_they_are_filled(run, checkpoint, monkeypatch, tmp_path):
    """Filling takes minutes at such lengths, so no text may be made."""
    monkeypatch.setattr(HiddenLines, "padded", lambda *_: pytest.fail("a text was made"))
    command = ["--model", checkpoint, "--task", "niah_single@600", "--task", "vt@999000", "--budget", "1x"]
    commandline.fails(run("run", *command, "--length", 6, "--out", "r"), "vt@999000 take up to 999,000")
    assert not (tmp_path / "r").exists()
