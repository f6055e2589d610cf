"""The plugin's settings: what a user can write, and what is refused instead of meaning something else."""

import json
import re
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from types import SimpleNamespace

import pytest
from transformers import Qwen2Config

from hyperscale import methods
from hyperscale.engines.provider import EngineSpec
from hyperscale.engines.vllm.harness.compilation import LEVELS, choose_compilation, compilation_args, prompt_sizes
from hyperscale.engines.vllm.harness.engine_args import engine_args, recorded_prompts
from hyperscale.engines.vllm.harness.provider import CPU_HEADS, VllmProvider
from hyperscale.engines.vllm.options import Options, with_own_parameters
from hyperscale.errors import EngineError

CHECKPOINT = SimpleNamespace(dms_window_size=16, dms_cr=4)


def test_the_checkpoint_fills_in():
    assert Options.read({}, CHECKPOINT) == Options(method="dms", cr=4.0, window=16)
    assert Options.read(None, CHECKPOINT) == Options(method="dms", cr=4.0, window=16)
    chosen = {"method": "window", "cr": 8, "recent": 4, "reserve_output_fraction": 1}
    assert Options.read({"hyperscale": chosen}, SimpleNamespace()) == Options(
        method="window", cr=8, recent=4, window=0, reserve_output_fraction=1
    )


def test_options_of_random_are_its_parameters_too():
    own = with_own_parameters({"method": "random", "cr": 4, "recent": 3, "kv_budget": 64})
    method = Options.read({"hyperscale": own}, SimpleNamespace()).make_method()
    assert method == methods.create("random", cr=4, recent=3, budget=64, rule="proportional", pin_prompt=True)
    fixed = with_own_parameters({"rule": "random", "cr": 4, "share": "fixed"})
    method = Options.read({"hyperscale": fixed}, SimpleNamespace()).make_method()
    assert method == methods.create("random", cr=4, recent=16, rule="fixed", pin_prompt=True)
    for values in ({"method": "tova", "cr": 4}, {"method": "random", "cr": 4, "parameters": {"recent": 3}}, {}):
        assert with_own_parameters(values) == values


@pytest.mark.parametrize("method", ["tova", "quest", "keydiff"])
def test_a_budget_in_tokens_is_the_methods_own(method):
    options = Options.read({"hyperscale": {"method": method, "kv_budget": 64}}, SimpleNamespace())
    assert options.make_method() == methods.create(method, cr=1, budget=64)
    kept = 64 if method != "quest" else 900
    assert options.expected_entries(100, 800) == max(100, kept)
    assert options.expected_entries(100, 800, decodes=True) == kept


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (3, "must be a mapping"),
        (None, "must be a mapping"),
        ({"wndow": 3}, "no option 'wndow'; it has: method"),
        ({"cr": "8"}, "cr must be a number, not '8'"),
        ({"cr": True}, "cr must be a number, not True"),
        ({"cr": 0.5}, "cr must be at least 1"),
        ({"cr": float("nan")}, "cr must be at least 1"),
        ({"window": 1.5}, "window must be a whole number, not 1.5"),
        ({"window": -7}, "window must be at least 0"),
        ({"recent": 2.5}, "recent must be a whole number"),
        ({"recent": 0}, "recent must be at least 1"),
        ({"full_graphs": "false"}, "full_graphs must be true or false, not 'false'"),
        ({"vocabulary": -3}, "vocabulary must be at least 0"),
        ({"unused": 3}, "unused must be a list of whole numbers, not 3"),
        ({"unused": [[3]]}, "unused must be a list of whole numbers"),
        ({"unused": [-3]}, "unused must be at least 0"),
        ({"slack": None}, "slack must be a number"),
        ({"reserve_output_fraction": 1.5}, r"reserve_output_fraction must lie in \[0, 1\]"),
        ({"method": ["dms"]}, "method must be a string"),
        ({"method": "window"}, "method 'window' needs a cr"),
        ({"method": "random", "recent": 3}, "method 'random' needs a cr"),
        ({"method": "tova", "cr": 4, "parameters": {"pr": 1}}, "tova .*'pr'"),
        ({"method": "tova", "cr": 4, "parameters": {"per": "token"}}, "per"),
        ({"method": "tova", "cr": 4, "parameters": {"cr": 8}}, "parameters has a cr"),
        ({"method": "tova", "cr": 4, "recent": 64}, "recent is not read of tova"),
        (
            {"method": "random", "cr": 4, "budget_rule": "fixed", "parameters": {"pin_prompt": False}},
            "budget_rule is not read of random",
        ),
        ({"rule": "dms", "method": "dms"}, "rule is the former name of method"),
        ({"share": "half"}, "budget_rule must be 'proportional' or 'fixed', not 'half'"),
    ],
)
def test_what_means_nothing_is_refused(given, reason):
    with pytest.raises(EngineError, match=f"^{re.escape('additional_config.hyperscale')}.*{reason}"):
        Options.read({"hyperscale": given}, CHECKPOINT)


def test_former_names_of_options_work():
    former = {"rule": "random", "cr": 2, "share": "fixed"}
    assert Options.read({"hyperscale": former}, CHECKPOINT) == Options(
        method="random", cr=2, budget_rule="fixed", window=16
    )


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_vllm_is_given_room_for_the_longest_request_and_a_part_of_the_gpu(device):
    path = str(files("hyperscale") / "mini" / "weights" / "base")
    given = {"batch_size": 2, "device": device, "dtype": "float32", "vocabulary": 239}
    args = engine_args(path, methods.create("vanilla", cr=1), **given, max_tokens=100, gpu_memory=0.5)
    assert args["max_model_len"] == 100
    assert args.get("gpu_memory_utilization") == {"cpu": None, "cuda": 0.5}[device]
    assert ("kv_cache_memory_bytes" in args) == (device == "cpu")
    longer = engine_args(path, methods.create("vanilla", cr=1), **given, max_tokens=10**6)
    assert longer["max_model_len"] == 2560  # the model's own
    # Steps with prompts in them are long on a GPU, but no longer than all that the requests can have.
    assert args.get("max_num_batched_tokens") == {"cpu": None, "cuda": 200}[device]
    many = engine_args(path, methods.create("vanilla", cr=1), **given | {"batch_size": 9_000}, max_tokens=100)
    assert many.get("max_num_batched_tokens") == {"cpu": None, "cuda": 9_000}[device]


def test_a_large_model_keeps_the_short_steps_of_vllm(tmp_path):
    shape = {"hidden_size": 5120, "intermediate_size": 27648, "num_attention_heads": 40, "num_key_value_heads": 8}
    Qwen2Config(architectures=["Qwen2ForCausalLM"], num_hidden_layers=64, **shape).save_pretrained(tmp_path)
    given = {"batch_size": 64, "device": "cuda", "dtype": "bfloat16", "vocabulary": 151_936, "max_tokens": 20_000}
    assert "max_num_batched_tokens" not in engine_args(str(tmp_path), methods.create("vanilla", cr=1), **given)
    Qwen2Config(architectures=["Qwen2ForCausalLM"], num_hidden_layers=8, **shape).save_pretrained(tmp_path)
    assert engine_args(str(tmp_path), methods.create("vanilla", cr=1), **given)["max_num_batched_tokens"] == 8192


def test_a_short_run_prepares_less():
    layers, steps = 28, (100, 1_000, 1_500, 99_999, 100_000, None)
    assert [choose_compilation(n, layers) for n in steps] == ["none", "none", "graphs", "graphs", "full", "full"]
    assert choose_compilation(5_000, 6) == "none"
    # In the process of the run graphs cost less.
    assert [choose_compilation(n, 6, inside=True) for n in (1_000, 2_000, 100_000)] == ["none", "graphs", "full"]


def test_graphs_of_a_small_model_are_recorded_for_a_short_run_in_its_process():
    spec = EngineSpec(
        checkpoint=str(files("hyperscale") / "mini" / "weights" / "dms8"),
        method=methods.create("dms", cr=8),
        device="cuda",
        batch_size=72,
        max_tokens=2_500,
        planned_steps=2_048,
    )
    others = {
        "short": replace(spec, planned_steps=1_000),
        "on the second GPU": replace(spec, device="cuda:1"),
        "over two GPUs": replace(spec, tensor_parallel=2),
        "too large a cache": replace(spec, batch_size=4_096),
        "too small a part of the GPU": replace(spec, gpu_memory=0.05),
    }
    provider = VllmProvider()
    assert "records CUDA graphs and compiles nothing" in provider.start_note(spec)
    for name, other in others.items():
        assert "records and compiles nothing" in provider.start_note(other), name


def test_what_is_prepared_reaches_vllm():
    method = methods.create("dms", cr=8)
    found = {
        level: engine_args(
            str(files("hyperscale") / "mini" / "weights" / "dms8"),
            method,
            batch_size=5,
            device="cuda",
            dtype="bfloat16",
            vocabulary=9,
            max_tokens=64,
            compilation=level,
        )
        for level in LEVELS
    }
    assert found["none"]["enforce_eager"]
    # Room for a full batch: five requests of two blocks and one in advance, and the null block.
    config = json.loads((files("hyperscale") / "mini" / "weights" / "dms8" / "config.json").read_text())
    entry = config["num_hidden_layers"] * config["num_key_value_heads"] * 2 * config["head_dim"] * 2
    assert found["none"]["kv_cache_memory_bytes"] == (5 * 3 + 1) * 32 * entry
    assert found["graphs"]["compilation_config"]["cudagraph_capture_sizes"] == [1, 2, 4, 5]
    names = ("enforce_eager", "optimization_level", "kv_cache_memory_bytes")
    assert not any(name in found["full"] for name in names)  # as vLLM does it
    # Decode steps, and steps with prompts up to all tokens of the requests.
    prompts = [64, 80, 96, 112, 128, 160, 192, 224, 256, 320]
    assert found["full"]["compilation_config"] == {"cudagraph_capture_sizes": [1, 2, 4, 5, 8, *prompts]}


def test_a_full_batch_has_a_graph_whatever_its_size():
    """vLLM's own sizes have every eighth up to 256, then every sixteenth, up to twice the batch and 512."""
    usual = [1, 2, 4, *range(8, 201, 8)]
    assert compilation_args("full", 100) == {
        "compilation_config": {"cudagraph_capture_sizes": sorted([*usual, 100])},
    }
    sizes = compilation_args("full", 300)["compilation_config"]["cudagraph_capture_sizes"]
    assert sizes == [1, 2, 4, *range(8, 256, 8), *range(256, 289, 16), 300, *range(304, 513, 16)]
    # These are vLLM's own, and above 512 there are none.
    assert not any(compilation_args("full", size) for size in (1, 2, 4, 8, 64, 248, 256, 272, 512, 600))


def test_prompts_are_recorded_where_a_host_is_the_slower_one():
    """A small model's up to all tokens of a step, a larger one's only short ones."""
    small, of_15b, of_7b = (prompt_sizes(weights, 8192) for weights in (3_500_000, 46_800_000, 233_000_000))
    assert (small[-1], of_15b[-1], of_7b[-1]) == (8192, 5632, 1152)
    assert max((b - a) / a for a, b in pairwise(small)) <= 0.25
    assert max((b - a) / a for a, b in pairwise(small) if a >= 2048) <= 0.125
    assert prompt_sizes(3_500_000, 100) == [64, 80, 96]
    # They follow those of decode steps, of which there are none of more requests than there can be.
    sizes = compilation_args("full", 40, [64, 96, 128])["compilation_config"]["cudagraph_capture_sizes"]
    assert sizes == [1, 2, 4, *range(8, 81, 8), 96, 128]
    assert "cudagraph_capture_sizes" not in compilation_args("none", 40, [64])
    # Where they reach so far, a full batch of more than vLLM would record has its graph too.
    sizes = compilation_args("full", 600, small)["compilation_config"]["cudagraph_capture_sizes"]
    assert [size for size in sizes if 500 < size < 700] == [512, 576, 600, 640]
    assert 600 not in compilation_args("full", 600, [576])["compilation_config"]["cudagraph_capture_sizes"]


def test_vllms_own_model_records_no_prompts():
    """Its attention would cut each list into parts, with room for all of them."""
    path = str(files("hyperscale") / "mini" / "weights" / "base")
    given = {"batch_size": 8, "device": "cuda", "dtype": "float32", "vocabulary": 239, "max_tokens": 100}
    assert "compilation_config" not in engine_args(path, methods.create("vanilla", cr=1), **given)
    assert "compilation_config" in engine_args(path, methods.create("tova", cr=4), **given)


def test_gpus_that_share_a_layer_have_less_to_do(tmp_path):
    shape = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4}
    config = Qwen2Config(num_hidden_layers=28, **shape)
    assert [recorded_prompts(config, "bfloat16", 8192, n)[-1] for n in (1, 2, 4)] == [1152, 2304, 4608]
    assert recorded_prompts(config, "float32", 8192) == []  # 26 GiB


def test_head_sizes_on_a_cpu_are_those_of_the_installed_vllm():
    cpu_attn = pytest.importorskip("vllm.v1.attention.backends.cpu_attn")
    assert set(CPU_HEADS) == set(cpu_attn.CPUAttentionBackend.get_supported_head_sizes())
