"""`hyperscale retrofit` on tiny random checkpoints of each architecture, and what it says about mistakes."""

import json
import shlex
import shutil
from importlib.util import find_spec

import architectures
import commandline
import dms_folders
import public_data_rows
import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from hyperscale import models, results
from hyperscale.engines.loading import load_model
from hyperscale.errors import RetrofitError
from hyperscale.retrofit import gate_check, job, memory_estimate

pytestmark = pytest.mark.e2e

TEXT = "The search goes on from here, and each step names what it found before it turns back. "
QUICK = ("--steps-per-unit", 4, "--hard-steps", 2, "--window", 4, "--length", 64, "--rows", 2, "--accumulate", 2)
EVICTING = ("--steps-per-unit", 48, "--gate-lr", "3", *QUICK[2:])  # long enough to reach its ratios

LEFT = {"training.json", "metrics.jsonl", "training.png"} | ({"tensorboard"} if find_spec("tensorboard") else set())


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """The entry point without a network, and one thread."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return commandline.caller(monkeypatch, capsys, tmp_path)


def write(file, entries, column="text"):
    file.write_text("".join(json.dumps({column: entry}) + "\n" for entry in entries))
    return file


def texts(folder):
    return write(folder / "texts.jsonl", [TEXT[i:] for i in range(12)])


def model(folder, family, *, tied):
    """A checkpoint whose output layer is, or is not, its embedding."""
    logging.disable_progress_bar()
    words = architectures.tokenizer()
    made = tiny.model(family, vocab=len(words), eos=words.eos_token_id)
    made.config.tie_word_embeddings = tied
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(made.config, dtype=torch.float32).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("family", "tied", "weights", "recipe"),
    [
        ("qwen2", True, "float32", "paper"),
        ("qwen3", False, "float32", "paper"),
        ("llama", True, "bfloat16", "paper"),
        pytest.param("llama", False, "float32", "paper", marks=pytest.mark.slow),
        ("qwen2", True, "bfloat16", "lora"),
    ],
)
def test_a_retrofit_runs_with_dms_and_its_base_without(call, tmp_path, family, tied, weights, recipe):
    if recipe == "lora":
        pytest.importorskip("peft")
    base = model(tmp_path / "base-model", family, tied=tied)
    options = ("--cr", "2,3", "--lr", "1e-3", "--weights", weights, "--device", "cpu", *EVICTING, "--recipe", recipe)
    code, out, err = call("retrofit", "--model", base, "--data", texts(tmp_path), "--out", "made", *options)
    assert (code, err) == (0, ""), err
    for part in ("GiB", "documents", "step     1", "wrote made/dms3", "run --model made --method dms --cr 2,3 --task"):
        assert part in out
    record = json.loads((tmp_path / "made" / "training.json").read_text())
    assert [entry["cr"] for entry in record["dms"]] == [2, 3]
    assert [entry["steps"] for entry in record["dms"]] == [50, 98]
    assert [entry["reached_cr"] >= 0.8 * entry["cr"] for entry in record["dms"]] == [True, True]
    assert record["dms"][1]["tokens"] == 98 * 2 * 2 * 64
    assert record["base"] == str(base)
    card = (tmp_path / "made" / "dms3" / "README.md").read_text()
    entry = record["dms"][1]
    for part in (
        f"base_model: {base}",
        "low-rank updates (rank 16, alpha 32)" if recipe == "lora" else "all weights train",
        f"| of inference | {entry['kl_hard']:.5f} |",
        f"ratio reached {entry['reached_cr']:.2f}× where 3× was asked for",
        f"| 0 | {1 / (sum(entry['kept'][0]) / len(entry['kept'][0])):.2f}× |",
        f"{record['documents']['tokens']:,} tokens in",
        f"run --model {tmp_path / 'made'} --method vanilla,dms --cr 3 --task niah_single --context 1024 --budget 8x",
    ):
        assert part in card
    # The commands that are told run as they stand.
    told = [line.partition("hyperscale run ")[2] for line in (*card.splitlines(), out.replace("\n", " "))]
    told = [f"run {command}" for command in told if command]
    assert len(told) == 2
    for command in told:
        code, _, err = call(*shlex.split(command), "--dry-run")
        assert (code, err) == (0, ""), command
    shares = [share for layer in entry["kept"] for share in layer]
    assert sum(shares) / len(shares) == pytest.approx(1 - entry["alpha"])
    assert (tmp_path / "made" / "training.png").read_bytes().startswith(b"\x89PNG")
    made, _ = load_model(tmp_path / "made" / "dms3")
    assert made.config.tie_word_embeddings is tied
    before, _ = load_model(base, dtype=torch.bfloat16)
    # Low-rank updates are merged into the attention's projections; nothing else of the base moves.
    assert torch.equal(made.lm_head.weight.bfloat16(), before.lm_head.weight) is (recipe == "lora")
    made_attention, attention = made.model.layers[0].self_attn, before.model.layers[0].self_attn
    assert not torch.equal(made_attention.o_proj.weight.bfloat16(), attention.o_proj.weight)
    assert any(layer.self_attn.dms_proj_alpha.weight.abs().sum() > 0 for layer in made.model.layers)

    data = public_data_rows.write(tmp_path / "aime.jsonl", public_data_rows.AIME)
    run = ("--method", "vanilla,dms", "--cr", "3", "--task", "aime24", "--data", data, "--out", "out")
    code, _, err = call("run", "--model", "made", *run, "--length", "16", "--budget", "1x", "--grid", "mini")
    assert (code, err) == (0, "")
    (stored,) = results.read(tmp_path / "out")
    assert {s.method for s in stored.samples} == {"vanilla", "dms"}
    assert models.resolve("made", "vanilla", 1).path == str(base)


def test_a_dry_run_plans_each_recipe_from_the_configuration_alone(call, tmp_path):
    base = architectures.write(tmp_path / "model", "qwen2")
    for weights in base.glob("*.safetensors"):
        weights.unlink()
    command = ("retrofit", "--model", base, "--data", tmp_path / "none", "--out", "made", *QUICK)
    code, out, err = call(*command, "--length", 128, "--dry-run", "--gpu", "h200")
    assert (code, err) == (0, "")
    for part in ("Retrofit on one H200", "paper", "lora", "adapters", "--recipe paper is taken"):
        assert part in out
    assert not (tmp_path / "made").exists()
    before = sorted(tmp_path.rglob("*"))
    code, planned, err = call("retrofit", "--model", base, *QUICK, "--length", 128, "--dry-run", "--gpu", "h200")
    assert (code, err, planned) == (0, "", out)  # without --out
    assert sorted(tmp_path.rglob("*")) == before
    # Where it would train: no row has to be a multiple of the blocks of a GPU's kernels there.
    code, planned, err = call("retrofit", "--model", base, *QUICK, "--dry-run", "--device", "cpu")
    assert (code, err) == (0, "")
    assert "Retrofit on this machine of " in planned
    assert "is taken: the first that fits" in planned
    for options, title in (
        (("--gpu", "24GiB"), "one GPU of 24 GiB"),
        (("--gpu", "24GiB", "--gpus", "2"), "2 GPUs of 24 GiB"),
    ):
        assert (
            f"Retrofit on {title}"
            in call("retrofit", "--model", base, *QUICK, "--length", 128, "--dry-run", *options)[1]
        )
    code, _, err = call("retrofit", "--model", base, *QUICK)
    assert code == 2
    assert "--out is missing: pass a folder for the checkpoints, or --dry-run" in err
    code, _, err = call(*command, "--gpu", "h200")
    assert code == 2
    assert "pass --dry-run too" in err
    code, _, err = call(*command, "--dry-run", "--gpu", "h2000")
    assert code == 2
    assert "unknown GPU 'h2000'" in err


def test_a_borrowed_neuron_is_faded_out_first_and_runs(call, tmp_path):
    base = architectures.write(tmp_path / "model", "qwen2")
    options = ("--cr", "2", "--gate", "borrowed", "--per", "layer", "--fade-steps", 3, "--lr", "3e-3", *EVICTING)
    code, out, err = call("retrofit", "--model", base, "--data", texts(tmp_path), "--out", "made", *options)
    assert (code, err) == (0, "")
    assert "53 steps of 256 tokens" in out
    record = json.loads((tmp_path / "made" / "training.json").read_text())
    assert record["dms"][0]["steps"] == 3 + 48 + 2
    made, _ = load_model(tmp_path / "made" / "dms2")
    assert (made.config.dms_separate_alpha, made.config.dms_alpha_per) == (False, "layer")
    # The neuron was faded to nothing, and has learned since.
    rows = made.model.layers[0].self_attn.q_proj.weight.abs()
    assert 0 < rows[15].max() < rows.max() / 2
    data = public_data_rows.write(tmp_path / "aime.jsonl", public_data_rows.AIME)
    run = ("--method", "dms", "--cr", "2", "--task", "aime24", "--data", data, "--out", "out")
    code, _, err = call("run", "--model", "made", *run, "--length", "16", "--budget", "1x", "--grid", "mini")
    assert (code, err) == (0, "")


def test_chats_of_several_files_train_too(call, tmp_path):
    base = architectures.write(tmp_path / "model", "qwen3")
    chat = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": f"<think>\n{TEXT}</think>Done."}]
    (tmp_path / "data").mkdir()
    for name in "ab":
        write(tmp_path / "data" / f"{name}.jsonl", [chat] * 3, "messages")
    (tmp_path / "data" / "notes.md").write_text(TEXT)
    options = ("--cr", "2", *EVICTING)
    code, out, err = call("retrofit", "--model", base, "--data", "data", "--out", "made", *options)
    assert (code, err) == (0, "")
    assert "left out of data: 1 file (.md); read are .jsonl, .parquet, .txt directly in it" in " ".join(out.split())
    record = json.loads((tmp_path / "made" / "training.json").read_text())
    assert record["loss"] == "last reply"
    assert record["data"] | {"path": ""} == {"path": "", "column": "messages", "entries": 6}


def test_mistakes_are_one_line_each(call, tmp_path):
    base = architectures.write(tmp_path / "model", "qwen2")
    done = architectures.write(tmp_path / "done", "qwen2", gates=True)
    dms_folders.write(tmp_path / "done-fastdms", metadata=dms_folders.FASTDMS_METADATA)
    data = texts(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (tmp_path / "data.csv").write_text("text\n")
    (tmp_path / "empty.txt").write_text("\n")
    uneven = shutil.copytree(base, tmp_path / "uneven")
    config = json.loads((uneven / "config.json").read_text())
    (uneven / "config.json").write_text(json.dumps({**config, "num_attention_heads": 4, "num_key_value_heads": 3}))
    short = write(tmp_path / "short.jsonl", ["ab", "cd"])
    other = write(tmp_path / "other.jsonl", [TEXT], "question")
    one = write(tmp_path / "one.jsonl", [TEXT[:40]])
    number = write(tmp_path / "number.jsonl", [[{"role": "user", "content": 5}]], "messages")
    no_role = write(tmp_path / "no_role.jsonl", [[{"role": "user", "content": "Go."}, {"content": "a"}]], "messages")
    text_as_chat = write(tmp_path / "text_as_chat.jsonl", [{"role": "user"}], "messages")
    open_ended = write(tmp_path / "chat.jsonl", [[{"role": "user", "content": "Go."}]], "messages")
    for changed, text in (
        ({"--data": "nowhere.jsonl"}, "no file or folder nowhere.jsonl"),
        ({"--data": "data.csv"}, "is not a .jsonl, .parquet or .txt file"),
        ({"--data": "broken.jsonl"}, "broken.jsonl line 2 is not JSON"),
        ({"--data": other}, "has no column messages or text or ids, only question: pass --column"),
        ({"--data": data, "--column": "body"}, "has no column body, only text"),
        ({"--data": short}, "the longest has 3 tokens, and nothing is evicted within 4"),
        ({"--data": one}, "one document"),
        ({"--data": open_ended}, "chat.jsonl line 1 does not end with a reply"),
        ({"--data": number}, "number.jsonl line 1, message 1: content must be text, got 5: a chat is a list"),
        ({"--data": no_role}, "no_role.jsonl line 1, message 2: role is missing"),
        ({"--data": text_as_chat}, "text_as_chat.jsonl line 1 must be a list, got {'role': 'user'}"),
        ({"--data": "self", "--prompts": "nowhere.txt"}, "no file or folder nowhere.txt"),
        ({"--data": "self", "--prompts": "empty.txt"}, "empty.txt holds no prompts"),
        ({"--out": "full"}, "full exists and is not empty"),
        ({"--out": "data.csv/below"}, "cannot write in data.csv/below (Not a directory): choose another folder"),
        ({"--cr": "1"}, "--cr must be more than 1, got 1.0"),
        ({"--cr": "4,2"}, "--cr must be in ascending order"),
        ({"--cr": "eight"}, "not a list of numbers"),
        ({"--length": "5000"}, "7 to 4096"),
        ({"--hard-steps": "2,2,2"}, "3 numbers of hard steps for 1 ratios"),
        ({"--rows": "0"}, "--rows must be at least 1, got 0"),
        ({"--lr": "-1"}, "--lr must be more than 0, got -1"),
        ({"--weights": "int8"}, "--weights must be 'float32' or 'bfloat16', got 'int8'"),
        ({"--gate": "shared"}, "--gate must be 'separate' or 'borrowed', got 'shared'"),
        ({"--per": "token"}, "--per must be 'head' or 'layer', got 'token'"),
        ({"--format": "vllm"}, "--format must be 'nvidia' or 'fastdms', got 'vllm'"),
        ({"--format": "fastdms"}, "--format fastdms needs --gate borrowed and --per head"),
        ({"--fade-steps": "-1"}, "--fade-steps must be at least 0, got -1"),
        ({"--model": "nothing"}, "unknown model 'nothing'"),
        ({"--model": done}, "is a DMS checkpoint already"),
        ({"--model": tmp_path / "done-fastdms"}, "is a DMS checkpoint already"),
        ({"--model": uneven}, "has 4 query heads, no multiple of its 3 KV heads"),
        ({"--model": "owner/name@v1"}, "`hf download owner/name --revision v1`"),
        ({"--rows": "100000000"}, "--rows must be at most 65536, got 100000000"),
        ({"--rows": "65536", "--length": "4096"}, "pass fewer --rows"),
    ):
        options = dict(zip(QUICK[::2], QUICK[1::2], strict=True))
        options |= {"--model": base, "--data": data, "--out": "made", "--device": "cpu", **changed}
        code, _, err = call("retrofit", *(part for pair in options.items() for part in pair))
        assert (code, err.count("\n")) == (2, 1), (changed, err)
        assert text in err
        assert not (tmp_path / "made").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a machine with GPUs another line says how many there are")
def test_gpus_that_are_not_there_are_refused(call, tmp_path):
    base, data = architectures.write(tmp_path / "model", "qwen2"), texts(tmp_path)
    options = dict(zip(QUICK[::2], QUICK[1::2], strict=True)) | {"--gpus": "2", "--accumulate": "2"}
    options |= {"--model": base, "--data": data, "--out": "made"}
    options.pop("--device", None)
    code, _, err = call("retrofit", *(part for pair in options.items() for part in pair))
    assert (code, err.count("\n")) == (2, 1), err
    assert "--gpus 2: this machine has no GPU: leave it out, or pass --device cpu for 2 processes" in err
    assert not (tmp_path / "made").exists()


def test_more_gpus_than_there_are_and_one_of_them_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    job._require_gpus(2, "cuda", is_chosen=False)
    with pytest.raises(RetrofitError, match="--gpus 3: this machine has 2: pass a smaller number"):
        job._require_gpus(3, "cuda", is_chosen=False)
    with pytest.raises(RetrofitError, match="--device cuda:1 is one GPU: pass --device cuda with --gpus 2"):
        job._require_gpus(2, "cuda:1", is_chosen=True)


def test_a_record_that_does_not_name_the_base_is_refused_with_its_place(call, tmp_path):
    architectures.write(tmp_path / "made" / "dms8", "qwen2", gates=True)
    run = ("run", "--model", "made", "--method", "dms", "--cr", "8", "--task", "aime24", "--dry-run")
    for contents, text in (
        (None, "training.json (No such file"),
        ("{", "cannot read"),
        ('{"model": "m"}', "training.json: base is missing"),
        ('{"base": 5}', "training.json: base must be text, got 5"),
        ("[]", "training.json: must be a mapping"),
    ):
        if contents is not None:
            (tmp_path / "made" / "training.json").write_text(contents)
        code, _, err = call(*run)
        assert (code, err.count("\n")) == (2, 1), err
        assert text in err.replace("[Errno 2] ", "")
        assert "must name their base" in err


def test_a_checkpoint_that_fails_the_check_is_set_aside(call, tmp_path, monkeypatch):
    monkeypatch.setattr(gate_check, "MAX_RATIO", -1.0)
    monkeypatch.setattr(gate_check, "NEGLIGIBLE", -1.0)
    base = architectures.write(tmp_path / "model", "qwen3")
    code, _, err = call("retrofit", "--model", base, "--data", texts(tmp_path), "--out", "made", "--cr", "2", *QUICK)
    assert (code, err.count("\n")) == (2, 1)
    assert "CR 2 (kept as refused-dms2): the retrofit decides differently at inference" in err
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"refused-dms2", *LEFT}
    code, _, err = call("models", "--add", "made", "mine")
    assert (code, err.count("\n")) == (2, 1)
    assert "what the gate check of its retrofit refused (refused-dms2)" in err
    assert "rename refused-dms2 to dms2" in err
    shutil.rmtree(tmp_path / "made" / "refused-dms2")
    assert "holds a retrofit without a checkpoint yet" in call("models", "--add", "made", "mine")[2]


def test_a_checkpoint_that_evicts_too_little_is_set_aside(call, tmp_path):
    """Its gates have hardly moved: it would be a "2x" checkpoint that runs like the base."""
    base = architectures.write(tmp_path / "model", "qwen3")
    code, out, err = call("retrofit", "--model", base, "--data", texts(tmp_path), "--out", "made", "--cr", "2", *QUICK)
    assert (code, err.count("\n")) == (2, 1)
    assert "CR 2 (kept as refused-dms2): the retrofit saves less than asked: 0.0%" in err
    assert "a ratio of 1.00 where 2 was aimed at (at least 1.60)" in err
    assert "ratio reached 1.00" in out
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"refused-dms2", *LEFT}
    assert json.loads((tmp_path / "made" / "training.json").read_text())["dms"][0]["reached_cr"] == 1
    code, _, err = call("run", "--model", "made", "--method", "dms", "--cr", "2", "--task", "aime24", "--dry-run")
    assert code == 2
    assert "rename refused-dms2 to dms2" in err


def test_fastdms_checkpoints_train_and_run(call, tmp_path):
    base = architectures.write(tmp_path / "model", "llama")
    options = ("--cr", "2", "--gate", "borrowed", "--format", "fastdms", "--fade-steps", 3, "--lr", "1e-2", *EVICTING)
    code, _, err = call("retrofit", "--model", base, "--data", texts(tmp_path), "--out", "made", *options)
    assert (code, err) == (0, "")
    assert (tmp_path / "made" / "dms2" / "dms_metadata.json").is_file()
    made, _ = load_model(tmp_path / "made" / "dms2")
    assert (made.config.dms_decision_offset, made.config.dms_neuron_zeroing) == (0, "before_rope")
    data = public_data_rows.write(tmp_path / "aime.jsonl", public_data_rows.AIME)
    run = ("--method", "dms", "--cr", "2", "--task", "aime24", "--data", data, "--out", "out")
    code, _, err = call("run", "--model", "made", *run, "--length", "16", "--budget", "1x", "--grid", "mini")
    assert (code, err) == (0, "")


def test_a_model_too_large_for_any_gpu_is_refused_before_its_weights_are_asked_for(call, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_estimate, "device_memory", lambda _: ("NVIDIA H100", 80 * 2**30))
    options = ("--recipe", "paper", "--data", texts(tmp_path), "--out", "made")
    code, _, err = call("retrofit", "--model", "qwen-r1-32b", *options)
    assert (code, err.count("\n")) == (2, 1)
    for part in ("549.2 GiB", "NVIDIA H100 has 80 GiB", "--recipe adapters takes 61 GiB"):
        assert part in err


def test_dms_without_a_retrofit_prints_the_command_that_makes_it(call):
    code, _, err = call("run", "--model", "qwen-r1-32b", "--method", "dms", "--cr", "4")
    assert (code, err.count("\n")) == (2, 1)
    assert "`hyperscale retrofit --model qwen-r1-32b --data FILE --cr 4 --out DIR`" in err
    assert "`hyperscale run --model DIR --method dms --cr 4`" in err


@pytest.mark.parametrize("kind", ["codes", "bias"])
def test_nothing_is_trained_on_tensors_that_the_model_does_not_have(call, tmp_path, kind):
    from safetensors.torch import load_file, save_file

    base = model(tmp_path / "base-model", "llama", tied=False)
    tensors = load_file(base / "model.safetensors")
    name = "model.layers.0.self_attn.v_proj"
    if kind == "codes":
        tensors[f"{name}.weight"] = tensors[f"{name}.weight"].to(torch.float8_e4m3fn)
    else:
        tensors[f"{name}.bias"] = torch.ones(32)
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    result = call("retrofit", "--model", base, "--data", texts(tmp_path), "--out", "made", "--cr", 2, *QUICK)
    commandline.fails(result, name, "quantised" if kind == "codes" else "no place for")
    assert not (tmp_path / "made").exists()
