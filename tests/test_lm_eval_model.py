"""Hyperscale as a model of lm-eval, on tiny random checkpoints of each architecture."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import architectures
import dense_reference
import public_data_rows
import pytest
import torch
from lm_eval import utils
from transformers import AutoModelForCausalLM

from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import ConfigError, EngineError, MethodError, ModelError
from hyperscale.kv.prefilled import NEVER
from hyperscale.lm_eval import HyperscaleLM, main
from hyperscale.methods.registry import create
from hyperscale.utils.paths import data_dir

pytestmark = pytest.mark.e2e

FAMILIES = ("qwen2", "qwen3", "llama")
PAIRS = [
    ("The slit is narrow and the light is", " green"),
    ("The slit is narrow and the light is", " of no colour at all"),
    ("", "nothing before it"),
    ("A context that ends in a space ", "and goes on for a while, so that entries fall out of the window"),
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {family: architectures.write(folder / family, family, gates=True) for family in FAMILIES}


def requests(*arguments):
    return [SimpleNamespace(args=args, task_name="t", doc_id=i) for i, args in enumerate(arguments)]


def lm(path, method="vanilla", **more):
    return HyperscaleLM(model=str(path), method=method, device="cpu", **more)


def by_transformers(plain, context, continuation):
    """Log-probability and greediness of a continuation in one forward pass over everything, as lm-eval has it."""
    with torch.inference_mode():
        logprobs = plain(torch.tensor([context + continuation])).logits[0].log_softmax(-1)
    rows = logprobs[len(context) - 1 : -1]
    score = sum(float(row[token]) for row, token in zip(rows, continuation, strict=True))
    return score, rows.argmax(-1).tolist() == continuation


@pytest.mark.parametrize("family", FAMILIES)
def test_vanilla_scores_as_transformers_does(checkpoints, family):
    ours = lm(checkpoints[family], batch_size=3)
    plain = AutoModelForCausalLM.from_pretrained(checkpoints[family]).eval()
    (greedy,) = ours.generate_until(requests(("Light", {"until": [], "max_gen_toks": 1})), True)
    pairs = [*PAIRS, ("Light", greedy)]
    found = ours.loglikelihood(requests(*pairs), disable_tqdm=True)
    for (context, continuation), (score, most) in zip(pairs, found, strict=True):
        if context:
            encoded = ours._encode_pair(context, continuation)
        else:
            encoded = [ours.eot_token_id], ours.tok_encode(continuation)
        wanted = by_transformers(plain, *encoded)
        assert score == pytest.approx(wanted[0], abs=1e-3)
        assert most is wanted[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_dms_scores_as_masked_full_attention(checkpoints, family):
    ours = lm(checkpoints[family], "dms", batch_size=3)
    model, _ = load_model(checkpoints[family])
    scores = ours.loglikelihood(requests(*PAIRS), disable_tqdm=True)
    vanilla = lm(checkpoints[family]).loglikelihood(requests(*PAIRS), disable_tqdm=True)
    for number in (0, 1, 3):
        context, continuation = ours._encode_pair(*PAIRS[number])
        with torch.inference_mode():
            logits, _, expiries = dense_reference.forward(model, context + continuation, dense_reference.dms(model))
        assert any(int((each < NEVER).sum()) for each in expiries)
        logprobs = logits.log_softmax(-1)
        wanted = sum(float(logprobs[len(context) - 1 + i, token]) for i, token in enumerate(continuation))
        assert scores[number][0] == pytest.approx(wanted, abs=1e-3)
    assert abs(scores[3][0] - vanilla[3][0]) > 0.1


def test_what_is_greedy_is_what_greedy_decoding_gives(checkpoints):
    for method in ("vanilla", "dms"):
        model, words = load_model(checkpoints["qwen3"])
        engine = TorchEngine(model, words, create(method, cr=8 if method == "dms" else 1), batch_size=4)
        prompt = tuple(words.encode("Light"))
        (free,) = engine.generate([Request("p", 0, prompt, 12)], Sampling(0.0))
        other = (*free.token_ids[:-1], (free.token_ids[-1] + 1) % len(words))
        forced = [Request("p", i, prompt, len(t), forced_ids=t) for i, t in enumerate((free.token_ids, other))]
        drawn = Request("q", 0, prompt, 12)
        chains = {(c.problem, c.chain): c for c in engine.generate([*forced, drawn], Sampling(0.0))}
        assert chains["p", 0].greedy
        assert not chains["p", 1].greedy
        assert chains["p", 0].token_ids == free.token_ids == chains["q", 0].token_ids
        assert chains["p", 1].token_ids == other
        assert chains["p", 0].logprob == pytest.approx(free.logprob, abs=1e-6)
        assert chains["p", 0].trace.kv_reads == free.trace.kv_reads


def test_forced_tokens_go_past_an_end_of_sequence(checkpoints):
    model, words = load_model(checkpoints["qwen2"])
    engine = TorchEngine(model, words, create("vanilla", cr=1), batch_size=1)
    tokens = (5, words.eos_token_id, 7)
    (chain,) = engine.generate([Request("p", 0, (1, 2), 3, forced_ids=tokens)], Sampling(0.0, stop=("a",)))
    assert (chain.token_ids, chain.finish) == (tokens, "length")
    with pytest.raises(EngineError, match=r"forces 3 tokens and has L = 4: both must be the same"):
        list(engine.generate([Request("p", 0, (1, 2), 4, forced_ids=tokens)], Sampling(0.0)))


@pytest.mark.parametrize("method", ["vanilla", "dms"])
def test_generation_is_the_engines(checkpoints, method):
    model, words = load_model(checkpoints["llama"])
    engine = TorchEngine(model, words, create(method, cr=8 if method == "dms" else 1), batch_size=1)
    ours = lm(checkpoints["llama"], method, batch_size=4)
    asked = {"until": [], "max_gen_toks": 10, "do_sample": False}
    texts = ours.generate_until(requests(("Light", asked), ("A longer prompt about light", asked)), True)
    for text, prompt in zip(texts, ("Light", "A longer prompt about light"), strict=True):
        (chain,) = engine.generate([Request("t", 0, tuple(words.encode(prompt)), 10)], Sampling(0.0))
        assert text == chain.text
    asked = {"until": [], "max_gen_toks": 60, "do_sample": True, "temperature": 2.0}
    (whole,) = ours.generate_until(requests(("Light", asked)), True)
    stop = next(char for char in whole[1:] if char.isascii())
    (cut,) = ours.generate_until(requests(("Light", {**asked, "until": [stop]})), True)
    assert cut == whole[: whole.index(stop)]


def test_sampling_depends_on_the_document_alone(checkpoints):
    asked = {"until": [], "max_gen_toks": 8, "do_sample": True, "temperature": 1.0}
    ours = lm(checkpoints["qwen3"], batch_size="auto")
    four = requests(*[("Light", asked)] * 4)
    texts = ours.generate_until(four, True)
    assert len(set(texts)) > 1
    assert ours.generate_until(four[::-1], True) == texts[::-1]
    assert lm(checkpoints["qwen3"], seed=1).generate_until(four, True) != texts


def test_rolling_scores_are_sums_over_windows(checkpoints):
    ours = lm(checkpoints["qwen2"], max_length=8, batch_size=4)
    plain = AutoModelForCausalLM.from_pretrained(checkpoints["qwen2"]).eval()
    texts = ("light passes a narrow slit", "short")
    wanted = []
    for text in texts:
        windows = utils.get_rolling_token_windows(ours.tok_encode(text), ours.eot_token_id, 8, 1)
        pairs = [utils.make_disjoint_window(window) for window in windows]
        wanted.append(sum(by_transformers(plain, *pair)[0] for pair in pairs))
    found = ours.loglikelihood_rolling(requests(*((text,) for text in texts)), disable_tqdm=True)
    assert found == pytest.approx(wanted, abs=1e-3)
    with pytest.raises(ConfigError, match="longer than the model's 8"):
        ours.loglikelihood(requests(("a", "b" * 20)), disable_tqdm=True)


def test_a_budget_in_tokens_takes_the_place_of_the_ratio(checkpoints):
    compressed = lm(checkpoints["qwen3"], "tova", budget=24)
    assert compressed.get_model_info()["params"]["budget"] == 24
    assert compressed.get_model_info()["params"]["cr"] == 1
    asked = requests(("a word " * 40, {"until": [], "max_gen_toks": 20, "do_sample": False}))
    assert compressed.generate_until(asked, True) != lm(checkpoints["qwen3"]).generate_until(asked, True)
    for name, beside in (("cr", {"cr": 4}), ("rule", {"rule": "fixed"})):
        with pytest.raises(ConfigError, match=f"{name} in --model_args has no effect beside budget"):
            lm(checkpoints["qwen3"], "tova", budget=24, **beside)
    for wrong in (0, True, "24,48", 2.5):
        with pytest.raises(MethodError, match="budget of tova must be"):
            lm(checkpoints["qwen3"], "tova", budget=wrong)
    with pytest.raises(MethodError, match="no parameter 'budget'"):
        lm(checkpoints["qwen3"], "dms", budget=24)


def test_mistakes(checkpoints):
    with pytest.raises(ConfigError, match="enable_thinking='no' in --model_args must be true or false"):
        lm(checkpoints["qwen3"], enable_thinking="no")
    with pytest.raises(ConfigError, match="say the compression ratio of window"):
        HyperscaleLM(model="mini", method="window")
    with pytest.raises(ModelError, match="no DMS checkpoint"):
        HyperscaleLM(model="qwen-r1-7b", method="dms", cr=8)


def test_the_command(checkpoints, tmp_path):
    """lm-eval's own command, with one of our tasks, a task of multiple choice, and data from files."""
    data = public_data_rows.write(tmp_path / "aime.jsonl", public_data_rows.AIME)
    questions = public_data_rows.write(
        tmp_path / "q.jsonl", [{"q": "Is light fast?", "choices": ["yes", "no"], "gold": 0}] * 3
    )
    folder = tmp_path / "tasks"
    shutil.copytree(data_dir("tasks"), folder)
    (folder / "light.yaml").write_text(
        f"task: light\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {questions}}}}}\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_choice: '{{choices}}'\ndoc_to_target: gold\n"
        "metric_list: [{metric: acc}]\n"
    )
    options = {
        "--model": "hyperscale",
        "--model_args": f"model={checkpoints['qwen3']},method=dms,cr=8",
        "--tasks": "aime24,light",
        "--include_path": folder,
        "--metadata": json.dumps({"data": str(data)}),
        "--gen_kwargs": "max_gen_toks=16",
        "--batch_size": 4,
        "--output_path": tmp_path / "out",
    }
    line = [sys.executable, "-m", "hyperscale.lm_eval", *(str(part) for pair in options.items() for part in pair)]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*line, "--apply_chat_template"], capture_output=True, text=True, check=False, env=env, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(path.read_text())
    assert set(found["results"]) == {"aime24", "light"}
    assert found["n-samples"]["aime24"]["effective"] == 2
    assert found["config"]["method"] == "dms"
    assert found["config"]["params"]["cr"] == 8


def test_a_mistake_on_the_command_line_is_one_line(monkeypatch, capsys):
    def evaluate():
        HyperscaleLM.create_from_arg_string("model=mini,method=dms,cr=3", {"device": "cuda:0", "batch_size": 1})

    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", evaluate)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: mini has DMS checkpoints at CR 2, 4, 8, not 3")


def test_the_context_is_the_models(tmp_path):
    """``max_length`` may be less than the model's context, which scaled RoPE extends, and never more."""
    folder = architectures.write(tmp_path, "qwen2")
    path = folder / "config.json"
    rope = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 4096, "rope_theta": 1e4}
    assert lm(folder).max_length == 4096
    assert lm(folder, max_length=100).max_length == 100
    with pytest.raises(ConfigError, match=r"max_length=4097 .* context of 4,096"):
        lm(folder, max_length=4097)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_parameters": rope}))
    assert lm(folder).max_length == 8192
