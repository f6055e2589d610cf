"""A real pretrained model, SmolLM2-135M-Instruct, through a needle, the likelihood of text and a task of lm-eval's.

HYPERSCALE_SMOLLM2 names its folder, a transformers checkpoint as on the Hugging Face hub. Without it these tests skip.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from repository import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

import hyperscale as hs
import hyperscale.lm_eval

FOLDER = Path(os.environ.get("HYPERSCALE_SMOLLM2", "missing"))
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not (FOLDER / "config.json").is_file(), reason="no checkpoint of SmolLM2-135M here"),
]
QUESTIONS = [
    ("The capital of France is", ["Berlin", "Paris", "Madrid"], 1),
    ("The capital of Italy is", ["Rome", "Oslo", "Lisbon"], 0),
    ("The sun rises in the", ["west", "north", "east"], 2),
    ("A week has seven", ["days", "hours", "years"], 0),
    ("Two plus two is", ["nine", "four", "one"], 1),
    ("Water freezes to", ["gold", "wood", "ice"], 2),
]


def test_a_needle_is_found_with_the_full_cache_and_lost_with_a_short_window(tmp_path):
    results = hs.run(
        model=str(FOLDER),
        method=["vanilla", "window"],
        cr=4,
        pin_prompt=False,
        task="niah_single",
        context=400,
        length=24,
        limit=4,
        budget="all",
        device="cpu",
        out=tmp_path / "needle",
        progress=False,
    )
    accuracy = results.points.query("W == 1").set_index("method")["accuracy"]
    assert accuracy["vanilla"] >= 75
    assert accuracy["window"] <= accuracy["vanilla"] - 50


def test_likelihood_of_english():
    """With the full cache it is as transformers has it, at once and token by token; eviction costs something."""
    file, length = ROOT / "docs" / "tutorial.md", 96
    found = hs.loglik(file, model=str(FOLDER), device="cpu", length=length, documents=2, method="vanilla,tova", cr=4)
    plain = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(FOLDER).encode(file.read_text(encoding="utf-8"))
    rows = found.documents.query("method == 'vanilla'").to_dict("records")
    for row in rows:
        piece = int(row["document"].rpartition("#")[2])
        with torch.inference_mode():
            tokens = torch.tensor([ids[piece * length : (piece + 1) * length]])
            loss = float(plain(tokens, labels=tokens).loss)
        assert [row["nats"], row["full_nats"]] == pytest.approx([loss, loss], abs=1e-4)
    vanilla, tova = found.arms.to_dict("records")
    assert vanilla["kl"] < 1e-6
    assert 0.05 < tova["above_full"] < 3
    assert 3.6 < tova["realised_cr"] <= 4


def test_a_multiple_choice_of_lm_evals(tmp_path):
    rows = [{"q": q, "choices": choices, "gold": gold} for q, choices, gold in QUESTIONS]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "facts.yaml").write_text(
        f"task: facts\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path / 'facts.jsonl'}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_choice: '{{choices}}'\n"
        "doc_to_target: gold\nmetric_list: [{metric: acc}]\n"
    )
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    own = hyperscale.lm_eval.HyperscaleLM(model=str(FOLDER), batch_size=8, device="cpu")
    results = simple_evaluate(model=own, tasks=["facts"], task_manager=manager, bootstrap_iters=100)["results"]["facts"]
    assert results["acc,none"] >= 5 / 6
