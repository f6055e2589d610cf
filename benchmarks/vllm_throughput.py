"""Stock vLLM against the plugin and its methods at long context on models of real shapes, with random weights.

Engines are measured one after another, each by a process of its own:
1. prefill: one prompt of the context's length, until its first token;
2. decode with --chains requests at that length;
3. decode with as many as the engine lets run at once, its own best concurrency;
4. with --answers N: N requests of the context's length, --chains at once, that generate 24 tokens each, as those of
   context tasks do;
and for the second and third how fast attention reads the KV cache, against the bandwidth of a large copy on the same
card, and which kernels take the time (torch's profiler over a few steps). "core" are the milliseconds of a step without
the front end, which `hyperscale run` and `vllm serve` have in another process; "core idle" is what no kernel accounts
for in these, "gaps" the part of it between kernels of a graph. The core's parts say where the host is in a step: where
its "wait" is nothing, the GPU waits for the host.

The eviction is that of `method: hashed`: verdicts by a hash, of which 1 / CR keep an entry. It costs what DMS costs,
and says nothing about accuracy. Requests are brought to their length by prefilling them; that time has its own column.

With --own-process the engine's core runs in another process than its front end, as in `hyperscale run` and `vllm
serve`, where both work at the same time: tokens/s are then those of streamed tokens, without text made of them or a
server. Otherwise both take turns in one process, and "ms/step" has the work of both in it. Measured are prefill, with
the request's way into that process, and decode by what comes out: "ms/step" is the time for a token of each request,
"median" that between two outputs. What has to look into the core is "-" in the table, and --answers and --host are
refused. --most is 0 unless it is given, and the program fails if not all of these requests run at once. The package
must be installed: the other process finds the plugin by its entry point.

python benchmarks/vllm_throughput.py --out throughput.json
python benchmarks/vllm_throughput.py --toy                                  # the same code, a tiny model, on the CPU
python benchmarks/vllm_throughput.py --engines ours-full --out more.json    # engines one by one, if time is short
python benchmarks/vllm_throughput.py --shape qwen2.5-1.5b --context 4096 --chains 32 --most 0 --engines stock,tova
python benchmarks/vllm_throughput.py --shape qwen2.5-1.5b --context 4096 --chains 32 --own-process --steps 100

A type of the cache may follow an engine's name: `ours:fp8`, and of vLLM's own `stock:fp8`, `stock:turboquant_4bit_nc`.
An engine named after a method runs its rule at --cr, with prompts that are not pinned, as requests are mostly prompt;
`window-pinned` and the like keep them, which is these methods' default.
With --tensor-parallel N, N GPUs share the engine; "KV GiB" is of them together, and kernels are not told.
Of dmc, neurons of dummy weights decide: about half of the heads merge everything, the others nothing, whatever --cr is.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from vllm_recording import recorded_prompts, told, watched
from vllm_session import CORE_STEPS, Session

from hyperscale.engines.vllm.harness.process_end import end_waiting_with_process
from hyperscale.engines.vllm.method_names import HOSTED
from hyperscale.engines.vllm.plugin.parent_watch import END_WITH_PARENT
from hyperscale.methods import parameters
from hyperscale.methods.core.dmc_merge import MergeConfig

ANSWER_TOKENS = 24
_PREFILLS = 9  # short ones are timed more often

ENGINES = {
    "stock": None,
    "off": {"method": "none"},
    "ours": {"method": "hashed"},
    "ours-triton": {"method": "hashed", "decode": "triton"},
    "ours-piecewise": {"method": "hashed", "full_graphs": False},
}
"""The plugin's options for each engine; None for vLLM's own model class."""
for _name in (*HOSTED, "random", "window"):
    _pinned = {"pin_prompt": False} if "pin_prompt" in parameters(_name) else {}
    for _suffix, _full in (("", True), ("-piecewise", False)):
        ENGINES[_name + _suffix] = {"method": _name, "parameters": _pinned, "full_graphs": _full}
    if _pinned:
        ENGINES[_name + "-pinned"] = {"method": _name, "parameters": {}, "full_graphs": True}
ENGINES["dmc"] = {"method": "dmc"}
ENGINES["ours-full"] = ENGINES["ours"]  # its name while full graphs were not the default

SHAPES = {
    "smollm2-135m": ("llama", (576, 9, 3, 1536, 30), {"vocab_size": 49152, "tie_word_embeddings": True}),
    "qwen2.5-1.5b": ("qwen2", (1536, 12, 2, 8960, 28), {"vocab_size": 151936, "tie_word_embeddings": True}),
    "qwen2.5-7b": ("qwen2", (3584, 28, 4, 18944, 28), {"vocab_size": 152064, "tie_word_embeddings": False}),
    "qwen2.5-32b": ("qwen2", (5120, 40, 8, 27648, 64), {"vocab_size": 152064, "tie_word_embeddings": False}),
    "qwen3-8b": (
        "qwen3",
        (4096, 32, 8, 12288, 36),
        {"vocab_size": 151936, "tie_word_embeddings": False, "head_dim": 128},
    ),
}
"""Model type, (hidden size, query heads, KV heads, size of the MLP, layers), and more of the configuration."""
_SIZES = ("hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size", "num_hidden_layers")


def shape(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of the model's configuration."""
    if arguments.toy:
        sizes = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256}
        return {**sizes, "num_hidden_layers": arguments.layers or 2, "vocab_size": 512, "max_position_embeddings": 4096}
    _, numbers, more = SHAPES[arguments.shape]
    sizes = dict(zip(_SIZES, numbers, strict=True)) | more
    if arguments.layers:
        sizes["num_hidden_layers"] = arguments.layers
    return {**sizes, "max_position_embeddings": 131072, "rope_theta": 1e6}


def start(arguments: argparse.Namespace, folder: str, longest: int) -> Any:
    """The engine, with its core in this process or in one of its own."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if arguments.own_process else "0"
    if arguments.own_process:
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"  # as on every GPU
        os.environ[END_WITH_PARENT] = "1"
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    from vllm import EngineArgs, LLMEngine

    args: dict[str, Any] = {
        "model": folder,
        "skip_tokenizer_init": True,
        "load_format": "dummy",
        "dtype": "float32" if arguments.toy else "bfloat16",
        "max_model_len": longest,
        "max_num_seqs": max(arguments.most, arguments.chains),
        "max_num_batched_tokens": arguments.chunk,
        "enable_prefix_caching": False,
        "gpu_memory_utilization": arguments.memory,
        "disable_log_stats": True,
    }
    engine, _, kv_dtype = arguments.worker.partition(":")
    options = ENGINES[engine]
    args |= {"kv_cache_dtype": kv_dtype} if kv_dtype else {}
    if options is not None:
        from hyperscale.engines.vllm.families import architecture
        from hyperscale.engines.vllm.plugin.register import register

        register()  # also where the package is on the path only, and vLLM finds no entry point
        if options["method"] != "none":
            options = options | {"cr": arguments.cr}
        if options["method"] == "hashed":
            options = options | {"window": arguments.window}
        overrides: dict[str, Any] = {"architectures": [architecture(SHAPES[arguments.shape][0])]}
        if options["method"] == "dmc":
            overrides |= MergeConfig(initial_offset=0.0, cr=arguments.cr).to_hf()
        args |= {"hf_overrides": overrides}
        args |= {"additional_config": {"hyperscale": options}}
    if not arguments.toy and arguments.recorded_prompts in (("all", "ours") if options else ("all",)):
        args |= recorded_prompts(folder, args["max_num_seqs"], arguments.chunk, arguments.tensor_parallel)
    if arguments.tensor_parallel > 1:
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
        args |= {"tensor_parallel_size": arguments.tensor_parallel}
        args |= {"worker_extension_cls": "vllm_session.LiveEntries"}
    if arguments.toy:
        args |= {"block_size": 32, "enforce_eager": True, "kv_cache_memory_bytes": 2 << 20}
    started = LLMEngine.from_engine_args(EngineArgs(**args))
    if arguments.own_process:
        end_waiting_with_process(started.engine_core.output_queue_thread, started.engine_core.outputs_queue)
    return started


def measure_engine(arguments: argparse.Namespace, folder: str) -> dict[str, Any]:
    """All measurements of one engine."""
    # Tokens that the first requests draw until the last one has its first.
    spare = max(arguments.most, arguments.chains) * arguments.context // arguments.chunk + 64
    longest = arguments.context + spare + CORE_STEPS + 80
    with nullcontext({}) if arguments.toy or arguments.own_process else watched() as recorded:
        session = Session(start(arguments, folder, longest), own_process=arguments.own_process)
    session.prefill(arguments.context // 4)  # compiles what is compiled at first use
    times = [session.prefill(arguments.context) for _ in range(3 if arguments.context > 8192 else _PREFILLS)]
    measurements: dict[str, Any] = {"own_process": arguments.own_process, **recorded}
    measurements["prefill_s"] = statistics.median(times)
    measurements["prefill_tokens_per_s"] = arguments.context / measurements["prefill_s"]
    measurements["prefill_ms"] = [round(1e3 * seconds, 2) for seconds in times]
    length = arguments.context - arguments.steps
    if arguments.own_process:
        print_result(measurements)
        for case, requests in (("chains", arguments.chains), ("best", arguments.most)):
            if arguments.decode and requests:
                measurements[case] = session.decode_by_outputs(requests, length, arguments.steps, spare)
                print_result(measurements)
        session.engine.engine_core.shutdown()
        return measurements
    with session.host_parts() as seconds:
        session.prefill(arguments.context)
    # Kernels are seen in this process alone, and several GPUs have processes of their own.
    profiled_steps = 0 if arguments.toy or arguments.tensor_parallel > 1 else 10
    measurements["prefill_host_ms"] = {name: round(1e3 * spent, 2) for name, spent in seconds.items()}
    if profiled_steps:
        session.add(arguments.context, 1)
        step_tokens = session.steps()
        measurements["prefill_where"] = session.where(step_tokens, arguments.context // arguments.chunk + 3, 1)
        list(step_tokens)
    print_result(measurements)
    if arguments.answers:
        measurements["answers"] = session.answer(
            arguments.answers, arguments.context, ANSWER_TOKENS, profiled_steps, host=arguments.host
        )
        print_result(measurements)
    if not arguments.decode:
        return measurements
    measurements["chains"] = session.decode(
        arguments.chains, length, arguments.steps, spare, profiled_steps, host=arguments.host
    )
    print_result(measurements)
    if arguments.most:
        measurements["best"] = session.decode(arguments.most, length, arguments.steps, spare, profiled_steps)
    return measurements


def print_result(measurements: dict[str, Any]) -> None:
    """Print what an engine has measured so far, for the process that reads it."""
    print("RESULT " + json.dumps(measurements), flush=True)


def parts(case_measurements: dict[str, Any]) -> str:
    """Where the time of a step goes, of kernels and of the core."""
    where = ", ".join(f"{kind} {milliseconds:.2f}" for kind, milliseconds in case_measurements["where"].items())
    core_parts = case_measurements["core_parts_ms"].items()
    return f"{where}; core: " + ", ".join(f"{part} {milliseconds:.2f}" for part, milliseconds in core_parts)


def own_process_note(case_measurements: dict[str, Any]) -> str:
    """What stands in place of the parts where the core had a process of its own."""
    paused = case_measurements["paused"]
    return "the core in a process of its own" + (f"; {paused} requests paused" if paused else "")


def table(results: dict[str, Any]) -> str:
    """What was found, a line for each engine and number of requests."""
    head = [
        "engine",
        "requests",
        "ms/step",
        "median",
        "core",
        "core idle",
        "gaps",
        "tokens/s",
        "KV GiB",
        "attention GB/s",
        "preempted",
        "fill s",
        "prefill tok/s",
    ]
    lines = [[*head, "where the time goes, ms a step"]]
    for name, measurements in results["engines"].items():
        for case in ("chains", "best"):
            if case not in measurements:
                continue
            case_measurements = measurements[case]
            # What is measured inside of the core is absent where it has a process of its own.
            numbers = (
                "ms_per_step",
                "median_ms",
                "core_ms_per_step",
                "core_idle_ms",
                "gaps_ms",
                "tokens_per_s",
                "kv_gib",
                "attention_gb_per_s",
            )
            # Where nobody waits the offer was the limit, not memory.
            lines.append(
                [
                    name,
                    f"{case_measurements['requests']}{'' if case_measurements['waiting'] else ' (all)'}",
                    *(f"{case_measurements[key]:.2f}" if key in case_measurements else "-" for key in numbers),
                    str(case_measurements.get("preemptions", "-")),
                    f"{case_measurements['fill_s']:.1f}",
                    f"{measurements['prefill_tokens_per_s']:.0f}",
                    own_process_note(case_measurements)
                    if measurements.get("own_process")
                    else parts(case_measurements),
                ]
            )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def answers_table(results: dict[str, Any]) -> str:
    """What requests took that are mostly prompt, a line for each engine."""
    lines = []
    for name, measurements in results["engines"].items():
        if found := measurements.get("answers"):
            where = ", ".join(f"{kind} {milliseconds:.2f}" for kind, milliseconds in found["where"].items())
            host = ", ".join(f"{part} {milliseconds:.2f}" for part, milliseconds in found["host_ms"].items())
            rates = f"{found['requests_per_s']:.1f} requests/s, {found['prompt_tokens_per_s']:.0f} tokens of prompts/s"
            lines.append(
                f"{name}: {rates}; "
                f"{found['steps']} steps of {found['ms_per_step']:.1f} ms and {found['tokens_per_step']:.0f} tokens"
                f", of the host {host}" + (f", of the GPU {where}" if where else "")
            )
    return "\n".join(lines)


def main() -> None:
    """Run every engine in a process of its own; in such a process, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default="stock,ours", help=f"of {', '.join(ENGINES)}")
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-32b")
    parser.add_argument("--layers", type=int, default=0, help="all of the real model's, or fewer for a smaller card")
    parser.add_argument("--context", type=int, default=0, help="tokens of a request while it is timed (16384)")
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument(
        "--most",
        type=int,
        help="requests that are offered for the best concurrency (64, or 0 with --own-process), 0 for none",
    )
    parser.add_argument("--answers", type=int, default=0, help="requests with short answers that are timed (none)")
    parser.add_argument("--decode", action=argparse.BooleanOptionalAction, default=True, help="time decode steps")
    parser.add_argument("--steps", type=int, default=0, help="decode steps that are timed (200)")
    parser.add_argument("--chunk", type=int, default=0, help="most tokens of a step (8192)")
    parser.add_argument("--cr", type=float, default=8)
    parser.add_argument("--window", type=int, default=0, help="w of DMS (256)")
    parser.add_argument("--memory", type=float, default=0.92, help="part of the GPU's memory for vLLM")
    parser.add_argument("--tensor-parallel", type=int, default=1, help="GPUs, or on the CPU processes, that share it")
    parser.add_argument(
        "--recorded-prompts",
        choices=("none", "ours", "all"),
        default="ours",
        help="engines that have CUDA graphs of steps with prompts, between attention layers",
    )
    parser.add_argument("--host", action="store_true", help="also print where the host's time goes in decode steps")
    parser.add_argument(
        "--own-process",
        action="store_true",
        help="run the engine's core in a process of its own, as runs and servers do",
    )
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.own_process:
        for option in ("answers", "host"):
            if getattr(arguments, option):
                parser.error(f"--{option} looks into the engine's core, which --own-process puts out of reach")
        is_ours = any(name.partition(":")[0] != "stock" for name in arguments.engines.split(","))
        if is_ours and not entry_points(group="vllm.general_plugins", name="hyperscale"):
            parser.error("--own-process needs the package installed, as the other process finds the plugin in it")
        arguments.most = arguments.most or 0
    usual = {"context": (16384, 192), "most": (64, 24), "steps": (200, 12), "chunk": (8192, 64), "window": (256, 16)}
    for name, (real, toy) in usual.items():
        if getattr(arguments, name) in (None, 0) and not (name == "most" and arguments.most == 0):
            setattr(arguments, name, toy if arguments.toy else real)
    if arguments.worker:
        print_result(measure_engine(arguments, arguments.folder))
        return
    if unknown := {name.partition(":")[0] for name in arguments.engines.split(",")} - set(ENGINES):
        parser.error(f"no engine {sorted(unknown)[0]}")
    run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Start the processes and gather what they print; what is known is written at once."""
    import torch
    from gpu_timing import copy_bandwidth
    from transformers import Qwen2Config, Qwen3Config

    family = SHAPES[arguments.shape][0]
    has_gpu = torch.cuda.is_available()
    results: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if has_gpu else "cpu",
        "copy_gb_per_s": copy_bandwidth() if has_gpu else 0.0,
        "asked": {key: value for key, value in vars(arguments).items() if key not in ("out", "worker", "folder")},
        "engines": {},
    }
    torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        kind = Qwen3Config if family == "qwen3" else Qwen2Config
        kind(architectures=[f"{family.capitalize()}ForCausalLM"], **shape(arguments)).save_pretrained(folder)
        for name in arguments.engines.split(","):
            command = [sys.executable, __file__, *sys.argv[1:], "--worker", name, "--folder", folder]
            start_time = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                for line in process.stdout or ():
                    if line.startswith("RESULT "):
                        measurements = json.loads(line.removeprefix("RESULT "))
                        results["engines"][name] = {**measurements, "process_s": time.perf_counter() - start_time}
                        if arguments.out:
                            arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
                    else:
                        print(line, end="", file=sys.stderr)
            if process.returncode:
                print(f"{name} failed with exit code {process.returncode}", flush=True)
    print(f"{results['card']}; a copy moves {results['copy_gb_per_s']:.0f} GB/s")
    print(table(results))
    if recorded := told(results["engines"]):
        print(recorded)
    if answers := answers_table(results):
        print(answers)


if __name__ == "__main__":
    main()
