"""`hyperscale run` on the tasks on public data, with tiny random checkpoints of each true architecture, from files."""

import json

import architectures
import commandline
import pandas as pd
import public_data_rows
import pytest

from hyperscale import models, results
from hyperscale.errors import ConfigError
from hyperscale.results import regrade
from hyperscale.run import dry_run

pytestmark = pytest.mark.e2e

FAMILIES = ("qwen2", "qwen3", "llama")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """The entry point without a network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    return commandline.caller(monkeypatch, capsys, tmp_path)


TINY = ("--length", "16,32", "--budget", "1x", "--grid", "mini")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_from_files(run, tmp_path, family):
    model = architectures.write(tmp_path / family, family, gates=True)
    data = public_data_rows.write(tmp_path / "aime.jsonl", public_data_rows.AIME)
    options = ("--method", "vanilla,dms", "--cr", "8", "--task", "aime24", "--data", data, "--out", "out", *TINY)
    code, out, err = run("run", "--model", model, *options)
    assert (code, err) == (0, "")
    assert "2 problems" in out
    (stored,) = results.read(tmp_path / "out")
    assert {s.problem for s in stored.samples} == {"60", "61"}
    assert {s.method for s in stored.samples} == {"vanilla", "dms"}
    assert {s.task_version for s in stored.samples} == {"1.1"}
    vanilla, dms = (sum(s.whole.kv_reads for s in stored.samples if s.method == m) for m in ("vanilla", "dms"))
    assert 0 < dms / sum(s.tokens for s in stored.samples if s.method == "dms") < vanilla
    points = pd.read_csv(tmp_path / "out" / results.POINTS)
    assert set(points["L"]) == {16, 32}
    assert (points[points["method"] == "dms"]["realised_cr"] > 1.1).all()


def test_other_data_are_another_run_and_a_moved_file_is_not(run, tmp_path):
    model = architectures.write(tmp_path / "model", "qwen3")
    data = public_data_rows.write(tmp_path / "aime.jsonl", public_data_rows.AIME)
    options = ("run", "--model", model, "--task", "aime24", "--out", "out", *TINY)
    assert run(*options, "--data", data)[0] == 0
    moved = data.rename(tmp_path / "moved.jsonl")
    assert run(*options, "--data", f"aime24={moved}")[::2] == (0, "")
    public_data_rows.write(moved, [{**row, "answer": "5"} for row in public_data_rows.AIME])
    code, _, err = run(*options, "--data", moved)
    assert code == 2
    assert "documents.aime24 was" in err


def test_every_task_runs_and_no_gated_question_is_written(run, tmp_path):
    model = architectures.write(tmp_path / "model", "qwen2")
    options = []
    for name, data in public_data_rows.BY_TASK.items():
        options += ["--data", f"{name}={public_data_rows.write(tmp_path / f'{name}.parquet', data)}"]
    options += [
        "--task",
        ",".join(public_data_rows.BY_TASK),
        "--limit",
        "2",
        "--out",
        "out",
        "--sandbox",
        "none",
        *TINY,
    ]
    code, _, err = run("run", "--model", model, *options)
    assert code == 0, err
    (stored,) = results.read(tmp_path / "out")
    assert {s.task for s in stored.samples} == set(public_data_rows.BY_TASK)
    assert "photons" not in "".join(p.read_text() for p in (tmp_path / "out").iterdir() if p.is_file())
    done = regrade.regrade(tmp_path / "out", sandbox="none")
    assert (done.answers, done.verdicts) == (0, 0)


def test_mistakes_about_data(run, tmp_path):
    data = public_data_rows.write(tmp_path / "aime.jsonl", public_data_rows.AIME)
    for arguments, text in (
        (("--task", "aime24,aime25", "--data", data), "say whose data it is, --data task=PATH"),
        (("--task", "aime24", "--data", f"aime25={data}"), "'aime25', which is no task of this run"),
        (("--task", "aime24", "--data", data, "--data", data), "twice"),
        (("--task", "aime24", "--data", "nowhere.jsonl"), "no file or folder"),
        (("--task", "aime24"), "aime24 needs the data set HuggingFaceH4/aime_2024"),
        (("--task", "aime24", "--task-param", "aime24.release=1"), "no parameter 'release'"),
        (("--task", "aime24", "--task-param", "release=1"), "write name.parameter=value"),
        (("--task", "aime24", "--task-param", "livecodebench.release=1"), "is no task of this run"),
        (("--gpu", "H100"), "--gpu goes with --dry-run"),
    ):
        code, _, err = run("run", "--model", "mini", *arguments)
        assert code == 2
        assert err.count("\n") == 1
        assert text in err


@pytest.mark.parametrize("name", sorted(set(models.available()) - {"mini"}))
def test_a_dry_run_needs_nothing(run, name):
    method = "vanilla,dms" if models.find(name).dms else "vanilla,window"
    code, out, err = run("run", "--model", name, "--method", method, "--budget", "8x", "--dry-run", "--gpu", "h100")
    assert (code, err) == (0, "")
    reasoning = ("aime24", "math500", "gpqa_diamond", "livecodebench", "30 problems", "L=16384")
    context = ("niah_single@4096", "vt@4096", "100 problems, prompts of 4096 tokens", "L=64")
    for part in (*(context if "vt" in models.find(name).tasks else reasoning), "H100", "weights take"):
        assert part in out
    assert "chains at a time" in out


def test_the_plan_of_a_large_model():
    """64 layers, 8 KV heads of 128, bfloat16: 256 KiB a token, so 16,554 tokens of one chain take 4.04 GiB."""
    from hyperscale.run.config import load

    asked = load.make_config({"model": "qwen-r1-32b", "methods": ["vanilla", "dms"], "crs": [8], "tasks": ["aime24"]})
    expected = dry_run.plan_dry_run(asked, "H100")
    vanilla, dms = expected.needs
    assert vanilla.L == 16384
    assert vanilla.chain_bytes == pytest.approx((170 + 16384) * 2**18, rel=1e-3)
    assert dms.L == 32768
    assert dms.chain_bytes == pytest.approx((170 + 32768) * 2**15, rel=1e-3)
    assert expected.weights == pytest.approx(61 * 2**30, rel=0.01)
    assert vanilla.fitting == (0.9 * 80 * 2**30 - expected.weights) // vanilla.chain_bytes == 2
    assert any("dms cannot run yet" in note for note in expected.notes)
    assert dry_run.plan_dry_run(asked, "48GiB").needs[0].fitting == 0
    forced = dry_run.plan_dry_run(
        load.make_config({**asked.model_dump(exclude_unset=True), "force_answer": 512}), "H100"
    )
    assert forced.needs[0].chain_bytes == vanilla.chain_bytes + forced.tasks[0].shape.answer * 2**18
    assert forced.tasks[0].shape.answer >= 512
    with pytest.raises(ConfigError, match="unknown GPU 'abacus'"):
        dry_run.plan_dry_run(asked, "abacus")


def test_without_weights_one_line_says_what_is_missing(run):
    code, _, err = run("run", "--model", "qwen-r1-32b", "--task", "aime24")
    assert (code, err.count("\n")) == (2, 1)
    for part in ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "hf download", "local folder", "--dry-run"):
        assert part in err
    assert "hf auth login" not in err
    code, _, err = run("run", "--model", "llama-3.1-8b", "--task", "aime24")
    assert (
        "accept the terms at https://huggingface.co/meta-llama/Llama-3.1-8B-Instruct, `hf auth login`, then run `hf"
        in err
    )
    code, _, err = run("run", "--model", "qwen-r1-32b", "--method", "dms")
    assert (code, err.count("\n")) == (2, 1)
    assert "has no DMS checkpoint" in err
    assert "qwen3-8b" in err


SIZES = {
    "qwen-r1-32b": ("qwen2", 5120, 40, 27648, 152064, False),
    "qwen2.5-0.5b": ("qwen2", 896, 14, 4864, 151936, True),
    "qwen2.5-1.5b": ("qwen2", 1536, 12, 8960, 151936, True),
    "qwen2.5-3b": ("qwen2", 2048, 16, 11008, 151936, True),
    "qwen2.5-7b": ("qwen2", 3584, 28, 18944, 152064, False),
    "qwen3-8b": ("qwen3", 4096, 32, 12288, 151936, False),
    "llama-3.2-1b": ("llama", 2048, 32, 8192, 128256, True),
    "llama-3.2-3b": ("llama", 3072, 24, 8192, 128256, True),
    "smollm2-135m": ("llama", 576, 9, 1536, 49152, True),
    "smollm2-360m": ("llama", 960, 15, 2560, 49152, True),
    "smollm2-1.7b": ("llama", 2048, 32, 8192, 49152, True),
}
"""Of registered models: family, hidden size, query heads, size of the MLP, vocabulary, whether embeddings are tied."""


@pytest.mark.parametrize("name", SIZES)
def test_shapes_in_the_registry_are_those_of_the_architecture(name):
    """Parameters counted by building the true configuration without memory."""
    import torch
    from tiny import CONFIGS
    from transformers import AutoModelForCausalLM

    names = ("hidden_size", "num_attention_heads", "intermediate_size", "vocab_size", "tie_word_embeddings")
    family, *values = SIZES[name]
    assert models.find(name).family == family
    shape = models.find(name).shape
    more = {} if family == "qwen2" else {"head_dim": shape.head_dim}
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(
            CONFIGS[family](
                **dict(zip(names, values, strict=True)),
                **more,
                num_hidden_layers=shape.layers,
                num_key_value_heads=shape.kv_heads,
            )
        )
    assert sum(p.numel() for p in built.parameters()) == shape.parameters


def test_registered_models_say_what_they_are():
    for name in set(models.available()) - {"mini"}:
        model = models.find(name)
        assert model.chat
        # Models that are asked about long texts have the tasks' own lengths, and sample as their files say.
        assert (model.base_length, model.sampling_source) in ((8192, "models.yaml"), (0, ""))
        assert model.shape.parameters > 1e8
        json.dumps(model.tasks)
