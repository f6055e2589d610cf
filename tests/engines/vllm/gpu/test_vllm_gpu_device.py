"""On a GPU only: what the vLLM engine does to the device. No step waits for it, and memory stays within its part."""

import pytest
import torch
from vllm_engines import EAGER, GREEDY, needs_vllm, path, requests, write_by_layer, write_merging

from hyperscale import methods

pytestmark = [
    needs_vllm,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

WITHOUT_WAITS = {
    "dms": ("dms8", methods.create("dms", cr=8)),
    "tova": ("base", methods.create("tova", cr=4)),
    "random": ("base", methods.create("random", cr=4, pin_prompt=False)),
    "window": ("base", methods.create("window", cr=4, pin_prompt=False)),
    "window, prompts pinned": ("base", methods.create("window", cr=4)),
    "streaming": ("base", methods.create("streaming", cr=4)),
    "h2o": ("base", methods.create("h2o", cr=4)),
    "quest": ("base", methods.create("quest", cr=4)),
    "snapkv": ("base", methods.create("snapkv", cr=4, window=4, pin_prompt=False)),
    "rkv": ("base", methods.create("rkv", cr=4)),
    "keydiff": ("base", methods.create("keydiff", cr=4)),
    "triattention": ("base", methods.create("triattention", cr=4, pin_prompt=False)),
    "dms in fp8": ("dms8", methods.create("dms", cr=8), "fp8"),
    "snapkv in fp8": ("base", methods.create("snapkv", cr=4, window=4, pin_prompt=False), "fp8"),
}


@pytest.mark.parametrize("method", [*WITHOUT_WAITS, "dmc", "dms by layer"])
def test_nothing_waits_for_the_device(method, tmp_path):
    """Steps of prefill and decode, and reading their reports late, never make the host wait inside attention."""
    from hyperscale.engines.vllm.harness.engine import VllmEngine
    from hyperscale.engines.vllm.worker.cache_worker import CacheWorker

    if method == "dmc":
        write_merging(tmp_path / "model", 1.0, 0.0)
        folder, rule, kv_dtype = str(tmp_path / "model"), methods.create("dmc", cr=2), []
    elif method == "dms by layer":
        write_by_layer(tmp_path / "model")
        folder, rule, kv_dtype = str(tmp_path / "model"), methods.create("dms", cr=8), []
    else:
        checkpoint, rule, *kv_dtype = WITHOUT_WAITS[method]
        folder = path(checkpoint)
    engine = VllmEngine(folder, rule, batch_size=8, kv_dtype=kv_dtype[0] if kv_dtype else "auto", **EAGER)
    try:
        list(engine.generate(requests(), GREEDY))  # compile everything first
        worker, impl = CacheWorker.current, type(_layer(engine).impl)
        attend, begin, report = impl.attend, type(worker).begin_step, type(worker).report_step
        merge = impl.merge

        def strict(function):
            def called(*args, **kwargs):
                torch.cuda.set_sync_debug_mode("error")
                try:
                    return function(*args, **kwargs)
                finally:
                    torch.cuda.set_sync_debug_mode("default")

            return called

        impl.attend, type(worker).begin_step, type(worker).report_step = strict(attend), strict(begin), strict(report)
        impl.merge = strict(merge)
        try:
            chains = list(engine.generate(requests(), GREEDY))
        finally:
            impl.attend, type(worker).begin_step, type(worker).report_step = attend, begin, report
            impl.merge = merge
    finally:
        engine.close()
    assert len(chains) == len(requests())


def _layer(engine):
    layers = engine._engine.vllm_config.compilation_config.static_forward_context
    return next(iter(layers.values()))


def test_the_memory_is_shared_out():
    """Cache, tables and weights stay within the part of the GPU that vLLM was given."""
    from hyperscale.engines.vllm.harness.engine import VllmEngine
    from hyperscale.engines.vllm.worker.cache_worker import CacheWorker

    more = {**EAGER, "kv_cache_memory_bytes": None}
    free, total = torch.cuda.mem_get_info()
    engine = VllmEngine(path("dms8"), methods.create("dms", cr=8), **more)
    try:
        taken = free - torch.cuda.mem_get_info()[0]
        assert CacheWorker.current.tables.nbytes > 1 << 20
        assert taken <= 0.3 * total + (1 << 29)
    finally:
        engine.close()
