"""On two GPUs only: an engine whose heads they share, and a run's engines side by side, against one GPU and torch."""

import subprocess
import sys

import pytest
import torch
from vllm_engines import needs_vllm, same, torch_chains, vllm_chains

from hyperscale import results

pytestmark = [
    needs_vllm,
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]


@pytest.mark.parametrize(
    "method",
    [("base", "vanilla", 1), ("dms8", "dms", 8), ("base", "window", 4)],
    ids=lambda arm: arm[1],
)
@pytest.mark.parametrize("compilation", ["none", "graphs"])
def test_two_gpus_that_share_an_engine_equal_torch(method, compilation):
    """Tokens and costs; vanilla's and the plugin's heads are shared out, half of them to each."""
    name, rule, cr = method
    more = {"device": "cuda", "tensor_parallel": 2, "compilation": compilation, "gpu_memory_utilization": 0.3}
    found = vllm_chains(name, rule, cr, **more, kv_cache_memory_bytes=1 << 28)
    same(torch_chains(name, rule, cr), found, name=name, method="dms" if rule == "dms" else "vanilla")


def test_a_run_on_two_gpus_gives_what_one_gives(tmp_path):
    """Two engines side by side, and two GPUs that share one; but for draws so close that the order of sums turns them.

    Of a chain with the same text the costs are the same.
    """
    arms = ("--method", "vanilla,dms", "--cr", "8", "--gpu-memory", "0.3", "--engine", "vllm", "--dtype", "float32")
    size = ("--task", "mini_aime", "--limit", "24", "--grid", "one", "--temperature", "0", "--budget", "all")
    placements = {
        "one": ("--gpus", "1"),
        "two": ("--gpus", "2", "--engines", "2"),
        "shared": ("--gpus", "2", "--tensor-parallel", "2"),
    }
    costs = {}
    for name, placement in placements.items():
        command = [sys.executable, "-m", "hyperscale.cli", "run", "--model", "mini", *arms, *size, *placement]
        ended = subprocess.run([*command, "--out", tmp_path / name], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        (run,) = results.read(tmp_path / name)
        costs[name] = {
            (sample.arm, sample.problem, sample.text): (
                sample.whole.tokens,
                sample.whole.kv_reads,
                sample.whole.peak_kv,
            )
            for sample in run.samples
        }
        assert len(costs[name]) == 48
    for name in ("two", "shared"):
        alike = costs[name].keys() & costs["one"].keys()
        assert len(alike) >= 46, name
        assert {key: costs[name][key] for key in alike} == {key: costs["one"][key] for key in alike}
