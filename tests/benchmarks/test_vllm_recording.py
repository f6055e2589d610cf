"""What the benchmark of vLLM tells of the CUDA graphs of its engines."""

import sys
from types import ModuleType

import vllm_recording


class Runner:
    def capture_model(self):
        return 3 << 29


def test_memory_and_seconds_of_graphs_are_noted(monkeypatch):
    original = Runner.capture_model
    for name in vllm_recording._RUNNERS:
        module = ModuleType(name)
        module.GPUModelRunner = type("GPUModelRunner", (Runner,), {})
        monkeypatch.setattr(vllm_recording, "import_module", sys.modules.__getitem__)
        monkeypatch.setitem(sys.modules, name, module)
    newer = sys.modules[vllm_recording._RUNNERS[1]].GPUModelRunner
    with vllm_recording.watched() as found:
        assert not found
        assert newer().capture_model() == 3 << 29
        newer().capture_model()
    newer().capture_model()
    assert found["graphs_gib"] == 3.0
    assert 0 < found["graphs_s"] < 1
    assert Runner.capture_model is original
    engines = {"stock": {"graphs_gib": 0.5, "graphs_s": 2.0}, "ours": dict(found, graphs_s=4.0), "own": {}}
    assert vllm_recording.told(engines) == "CUDA graphs: stock 0.50 GiB in 2.0 s, ours 3.00 GiB in 4.0 s"
    assert vllm_recording.told({"own": {}}) == ""
