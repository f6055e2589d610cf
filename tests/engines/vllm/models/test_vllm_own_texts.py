"""What a model writes for its own retrofit: vLLM is taken where it runs the model, and writes what torch does."""

import json

from vllm_engines import needs_vllm

from hyperscale.engines import registry
from hyperscale.models import find
from hyperscale.retrofit.sources import own_texts
from hyperscale.utils.hub import load_tokenizer

ENGINES = ("vllm", "torch")


@needs_vllm
def test_own_texts_are_those_of_the_torch_engine(tmp_path, monkeypatch):
    written = write_in_both(tmp_path, monkeypatch)
    assert len(written[0]) == 8
    assert written[0] == written[1]


@needs_vllm
def test_own_messages_and_their_answers_are_those_of_the_torch_engine(tmp_path, monkeypatch):
    written = write_in_both(tmp_path, monkeypatch, length=256, prompts="self")
    assert written[0] == written[1]
    # Over long messages that do not end the two may round a draw differently; none of these is answered.
    prompts = [(tmp_path / name / "prompts.jsonl").read_bytes() for name in ENGINES]
    assert prompts[0] == prompts[1]
    ends = [[json.loads(line)["ended"] for line in (tmp_path / name / "drawn.jsonl").open()] for name in ENGINES]
    assert ends[0] == ends[1]


def write_in_both(tmp_path, monkeypatch, length=64, prompts=None):
    """The documents of vLLM, and those of the torch engine."""
    monkeypatch.setattr(own_texts, "BATCH", 4)
    base = find("mini").base
    plan = own_texts.OwnTextPlan(base, "cpu", length=length, tokens=500, seed=0, prompts=prompts)
    written, lines = [], []
    for name in ENGINES:
        if name == "torch":
            monkeypatch.setattr(own_texts, "_choose_provider", lambda _: registry.get("torch"))
        source = own_texts.write_own_texts(plan, load_tokenizer(base), tmp_path / name / "self.jsonl", lines.append)
        assert any(f"in the {name} engine" in line for line in lines)
        written.append([entry.content for entry in source.entries])
    return written
