"""What a model writes for its own retrofit: vLLM is taken where it runs the model, and writes what torch does."""

from vllm_engines import needs_vllm

from hyperscale.engines import registry
from hyperscale.models import find
from hyperscale.retrofit.sources import own_texts
from hyperscale.utils.hub import load_tokenizer


@needs_vllm
def test_own_texts_are_those_of_the_torch_engine(tmp_path, monkeypatch):
    monkeypatch.setattr(own_texts, "BATCH", 4)
    base = find("mini").base
    plan = own_texts.OwnTextPlan(base, "cpu", length=64, tokens=500, seed=0, prompts=None)
    written, lines = [], []
    for name in ("vllm", "torch"):
        if name == "torch":
            monkeypatch.setattr(own_texts, "_choose_provider", lambda _: registry.get("torch"))
        source = own_texts.write_own_texts(plan, load_tokenizer(base), tmp_path / name / "self.jsonl", lines.append)
        assert any(f"in the {name} engine" in line for line in lines)
        written.append([entry.content for entry in source.entries])
    assert len(written[0]) == 8
    assert written[0] == written[1]
