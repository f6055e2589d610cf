"""The CUDA backend when vLLM starts: what it refuses, what it asks of graphs, and how its reports travel."""

import pickle

import pytest
import vllm_checkpoints
from interpreted import CUDA, MARKS
from vllm_engines import needs_vllm
from vllm_plain import start, stop

pytestmark = [pytest.mark.e2e, needs_vllm, *MARKS]
GPU = {"gpu_memory_utilization": 0.3} if CUDA else {}


@pytest.fixture(autouse=True)
def _on_cuda(monkeypatch):
    from hyperscale.engines.vllm import devices

    monkeypatch.setattr(devices, "current_device", lambda: "cuda")


REFUSED = {
    "head size": ({}, {"head_dim": 96}, "powers of two from 16 to 256 on CUDA, not 96"),
    "block size": ({"block_size": 48}, {}, "powers of two from 16 to 256 on CUDA, not 48"),
    "kernel": ({"additional_config": {"hyperscale": {"decode": "flash"}}}, {}, "decode must be one of"),
    "hashed": ({"additional_config": {"hyperscale": {"method": "hashed"}}}, {}, "needs a cr"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_kernels_cannot_do_is_refused_at_start(case, tmp_path):
    more, shape, reason = REFUSED[case]
    vllm_checkpoints.write(tmp_path, "qwen3", **shape)
    with pytest.raises(Exception, match=reason):
        start(tmp_path, **more)


def test_fp8_is_refused_on_a_gpu_that_cannot_convert_it(tmp_path, monkeypatch):
    """On compute capability 8.0 triton compiles no conversion of float8 e4m3: a run would end at its first token."""
    from hyperscale.engines.vllm import devices

    vllm_checkpoints.write(tmp_path, "qwen3")
    monkeypatch.setattr(devices, "has_float8", lambda: False)
    with pytest.raises(Exception, match=r"compute capability 8\.9 or newer: leave kv_dtype"):
        start(tmp_path, additional_config={"hyperscale": {"method": "none", "kv_dtype": "fp8"}})


def test_a_report_waits_where_it_is_read():
    from hyperscale.engines.vllm.protocol import RequestReport
    from hyperscale.engines.vllm.step_messages import StepReport

    calls = []
    reports = {"a": RequestReport(1, 7, 3, (5,))}
    report = StepReport(lambda: calls.append(1) or reports)
    assert not calls
    assert pickle.loads(pickle.dumps(report)).requests == report.requests == reports
    assert len(calls) == 1
    other = StepReport({"a": RequestReport(1, 7, 4, (2,))})
    assert report.aggregate(other).requests == {"a": RequestReport(1, 7, 4, (7,))}


def test_attention_splits_graphs(tmp_path):
    from vllm.config import CompilationConfig

    from hyperscale.engines.vllm.backends.cuda import CudaRaggedBuilder
    from hyperscale.engines.vllm.options import Options
    from hyperscale.engines.vllm.plugin.configure import OPERATOR

    vllm_checkpoints.write(tmp_path, "qwen3")
    stop(start(tmp_path, **GPU))
    chosen = CompilationConfig(mode=3)
    chosen.set_splitting_ops_for_v1("naive")
    assert OPERATOR in chosen.splitting_ops
    assert chosen.splitting_ops_contain_attention()
    for options, support in (
        (Options(), "UNIFORM_SINGLE_TOKEN_DECODE"),
        (Options(full_graphs=False), "NEVER"),
    ):
        spec = type("Spec", (), {"options": options})
        assert CudaRaggedBuilder.get_cudagraph_support(None, spec).name == support


@pytest.mark.parametrize(
    ("given", "full"), [({}, False), ({"full_graphs": False}, False), ({"full_graphs": True}, None)]
)
def test_data_parallelism_leaves_attention_out_of_graphs_unless_they_were_asked_for(given, full, tmp_path):
    from vllm import EngineArgs

    from hyperscale.engines.vllm.options import Options
    from hyperscale.engines.vllm.plugin import register
    from hyperscale.errors import EngineError

    register.register()
    vllm_checkpoints.write(tmp_path, "qwen3")
    sizes = {"max_model_len": 256, "data_parallel_size": 2, "skip_tokenizer_init": True}
    args = EngineArgs(str(tmp_path), dtype="float32", additional_config={"hyperscale": given}, **sizes)
    if full is None:
        with pytest.raises(EngineError, match="full_graphs do not go with data parallelism"):
            args.create_engine_config()
        return
    config = args.create_engine_config()
    assert Options.read(config.additional_config, config.model_config.hf_config).full_graphs is full
