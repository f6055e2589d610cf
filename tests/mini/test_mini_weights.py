"""The weights that ship with the package."""

import json

import pytest
import torch

from hyperscale import methods, models, tasks
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.kv.trace import dense_reads
from hyperscale.mini.benchmarks import LEVEL_COUNT
from hyperscale.mini.model import WEIGHTS
from hyperscale.mini.train import SHIPPED
from hyperscale.mini.training.data import make_batch
from hyperscale.mini.vocab import TOKENS
from hyperscale.retrofit.gate_check import check_gates
from hyperscale.retrofit.settings import Recipe
from hyperscale.retrofit.trainer import Retrofit
from hyperscale.scoring import graders

CRS = (2, 4, 8)
NAMES = ("base", *(f"dms{cr}" for cr in CRS))

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not WEIGHTS.is_dir(), reason="the built-in weights are not part of this checkout"),
]


def test_the_base_is_a_small_plain_transformers_model():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, info = AutoModelForCausalLM.from_pretrained(WEIGHTS / "base", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert sum(p.numel() for p in model.parameters()) <= 12e6
    embedding = model.get_input_embeddings().weight
    assert not embedding[len(TOKENS) :].any()
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert AutoTokenizer.from_pretrained(WEIGHTS / "base").get_vocab() == {token: i for i, token in enumerate(TOKENS)}


def test_the_checkpoints_are_small_and_say_what_they_are():
    assert {path.name for path in WEIGHTS.iterdir() if path.is_dir()} == set(NAMES)
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 60e6
    for cr in CRS:
        folder = WEIGHTS / f"dms{cr}"
        assert models.resolve("mini", "dms", cr).path == str(folder)
        config = json.loads((folder / "config.json").read_text())
        assert config["dms_window_size"] == 16
        assert config["dms_cr"] == cr
        model, _ = load_model(folder)
        for layer in model.model.layers:
            assert layer.self_attn.dms_proj_alpha.weight.any()
    assert models.resolve("mini", "vanilla", 1).path == str(WEIGHTS / "base")


@pytest.mark.parametrize("cr", CRS)
def test_the_gates_decide_as_they_were_trained(cr):
    base, _ = load_model(WEIGHTS / "base")
    retrofit = Retrofit(base, Recipe(window=16))
    retrofit.gated.model.load_state_dict(load_model(WEIGHTS / f"dms{cr}")[0].state_dict())
    torch.manual_seed(0)
    check = check_gates(retrofit, [make_batch("shipped", 1, 1024)])
    check.require(cr * SHIPPED.reach)
    assert check.hard < 0.015
    assert check.alpha == pytest.approx(1 - 1 / cr, abs=0.12)


def solve(kind, name, method, cr, length=640):
    """(problems solved, realised ratio) on the first six easy problems of a benchmark, one greedy chain each."""
    model, tokenizer = load_model(WEIGHTS / name)
    engine = TorchEngine(model, tokenizer, methods.create(method, cr=cr))
    task = tasks.load(f"mini_{kind}")
    docs = {doc.id: doc for doc in task.docs(6 * LEVEL_COUNT) if doc.level == 1}
    requests = [Request(doc.id, 0, task.prompt_ids(doc, tokenizer), length) for doc in docs.values()]
    chains = list(engine.generate(requests, Sampling(temperature=0.0)))
    assert len(chains) == len(docs) == 6
    grader = graders.get(task.grader)
    answers = {chain.problem: grader.extract(chain.text) for chain in chains}
    solved = sum(answer is not None and grader.correct(answer, docs[id].target) for id, answer in answers.items())
    dense = sum(dense_reads(chain.prompt_tokens, len(chain.token_ids)) for chain in chains)
    return solved, dense / sum(chain.trace.kv_reads[-1] for chain in chains)


@pytest.mark.parametrize("kind", ["aime", "gpqa", "lcb"])
def test_the_base_solves_easy_problems(kind):
    solved, ratio = solve(kind, "base", "vanilla", 1)
    assert solved >= 5
    assert ratio == pytest.approx(1)


@pytest.mark.parametrize("kind", ["aime", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gpqa", "lcb"))])
def test_dms_solves_them_too_and_reads_a_fraction(kind):
    # Chains of the easiest level are short, so that the window weighs more than on average.
    solved, ratio = solve(kind, "dms8", "dms", 8)
    assert solved >= 4
    assert 4 < ratio < 10
