"""Decode steps of the torch engine with and without CUDA graphs, on a model of a real shape with random weights.

All chains share a prompt of the context's length. Every method runs twice, launched kernel by kernel and as CUDA
graphs, in turns of --steps steps; printed is the median time of a step, tokens a second, and the ratio of the two. DMS
has random gates whose offset is set so that one entry in --cr is kept, the other methods their real rules, with prompts
that are not pinned. With --profile also what torch's profiler says of a few steps: time of the GPU at work, launches.
The floor is the time in which weights and live entries are read once, at the bandwidth of a large copy.

python benchmarks/torch_graphs.py --methods vanilla,dms --profile
python benchmarks/torch_graphs.py --toy --device cpu        # the same code, a tiny model, no graphs
"""

import argparse
import statistics
import time
from typing import Any

import torch
from decode_speed import NoText, calibrate, endless
from transformers import AutoModelForCausalLM, Qwen2Config
from vllm_throughput import SHAPES

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.torch import forward_pass
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.methods.core.dms_gate import GateConfig, attach_gates


def build_model(arguments: argparse.Namespace) -> Any:
    """A random model with random gates."""
    torch.manual_seed(0)
    _, (hidden, query_heads, kv_heads, inner, layers), more = SHAPES[arguments.shape]
    if arguments.toy:
        hidden, query_heads, kv_heads, inner, layers, more = 128, 4, 2, 256, 2, {"vocab_size": 512}
    config = Qwen2Config(
        hidden_size=hidden,
        num_attention_heads=query_heads,
        num_key_value_heads=kv_heads,
        intermediate_size=inner,
        num_hidden_layers=arguments.layers or layers,
        max_position_embeddings=131072,
        **more,
    )
    with torch.device(arguments.device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32 if arguments.toy else torch.bfloat16)
    attentions: list[Any] = attach_gates(model)
    for attention in attentions:
        torch.nn.init.normal_(attention.dms_proj_alpha.weight, std=0.01)
    for name, value in GateConfig(window=arguments.window).to_hf().items():
        setattr(model.config, name, value)
    return endless(model.eval().requires_grad_(False))


class Stepper:
    """A batch of chains at a given context, to be stepped and timed."""

    def __init__(self, model: Any, method: Any, requests: list[Request], sampling: Sampling, graphs: bool) -> None:
        tokenizer = NoText(model.config.vocab_size)
        options = {"batch_size": len(requests), "device": model.device, "cuda_graphs": graphs}
        self.engine = TorchEngine(model, tokenizer, method, **options)
        self.model, self.batch = model, self.engine.start_batch(sampling)
        self.waiting = iter(requests)

    def step(self) -> float:
        """Milliseconds of one step; the engine itself waits for the device once in it."""
        started = time.perf_counter()
        with torch.inference_mode(), forward_pass.use_own_attention(self.model):
            self.batch.advance(self.waiting)
        return 1e3 * (time.perf_counter() - started)


def profile(stepper: Stepper, steps: int) -> str:
    """Of a step: milliseconds in which the GPU works, and the calls that launch something."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(steps):
            stepper.step()
    events = profiler.key_averages()
    on_device = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(event.self_device_time_total for event in on_device) / 1e3 / steps
    launches = sum(event.count for event in events if "Launch" in event.key) / steps
    most = sorted(on_device, key=lambda event: -event.self_device_time_total)[:8]
    lines = [f"    {event.self_device_time_total / 1e3 / steps:7.3f} ms  {event.key[:90]}" for event in most]
    return "\n".join([f"    GPU works {busy:.2f} ms a step; {launches:.0f} launches a step", *lines])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", default="qwen2.5-1.5b", choices=[name for name in SHAPES if "qwen2" in name])
    parser.add_argument("--layers", type=int, help="of the model, instead of the shape's")
    parser.add_argument("--chains", type=int, default=32)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--cr", type=float, default=8)
    parser.add_argument("--window", type=int, default=256, help="of dms")
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--methods", default="vanilla,dms")
    parser.add_argument("--top-p", type=float, default=1.0, help="below 1 every step sorts the vocabulary")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--toy", action="store_true")
    arguments = parser.parse_args()

    model = build_model(arguments)
    generator = torch.Generator().manual_seed(0)
    prompt = tuple(torch.randint(0, model.config.vocab_size, (arguments.context,), generator=generator).tolist())
    calibrate(model, prompt, arguments.cr)
    on_gpu = arguments.device != "cpu"
    card = torch.cuda.get_device_name() if on_gpu else "CPU"
    print(f"{arguments.shape}, {arguments.chains} chains x {arguments.context}, {card}, torch {torch.__version__}")
    bandwidth = 0.0
    if on_gpu:
        from gpu_timing import copy_bandwidth

        bandwidth = copy_bandwidth()
        print(f"copy bandwidth {bandwidth:.0f} GB/s")
    weights = sum(tensor.nbytes for tensor in model.parameters())
    print(f"{'method':<14}{'graphs':>8}{'ms a step':>11}{'tokens/s':>10}{'times':>7}{'GiB live':>10}{'floor ms':>10}")
    sampling = Sampling(temperature=0.8, top_p=arguments.top_p)
    tokens = arguments.steps * arguments.turns + 64
    requests = [Request("step", chain, prompt, tokens) for chain in range(arguments.chains)]
    for name in arguments.methods.split(","):
        given = {"cr": 1 if name == "vanilla" else arguments.cr}
        if "pin_prompt" in methods.parameters(name):
            given["pin_prompt"] = False
        method = methods.create(name, **given)
        steppers = [Stepper(model, method, requests, sampling, graphs) for graphs in (False, True)]
        for stepper in steppers:
            for _ in range(5):  # prefill, compilation, capture
                stepper.step()
        times: list[list[float]] = [[], []]
        for _ in range(arguments.turns):
            for stepper, spent in zip(steppers, times, strict=True):
                spent += [stepper.step() for _ in range(arguments.steps)]
        medians = [statistics.median(spent) for spent in times]
        for number, (stepper, step) in enumerate(zip(steppers, medians, strict=True)):
            cache = stepper.batch.cache
            live = cache.live_entries * 2 * cache.head_dim * cache.dtype.itemsize
            floor = f"{(weights + live) / bandwidth / 1e6:>10.2f}" if bandwidth else ""
            print(
                f"{name:<14}{'yes' if number and stepper.engine.static else 'no':>8}{step:>11.2f}"
                f"{1e3 * arguments.chains / step:>10.0f}{medians[0] / step:>7.2f}{live / 2**30:>10.2f}{floor}",
                f" mean {statistics.mean(times[number]):.2f}, most {max(times[number]):.1f}",
                flush=True,
            )
            if arguments.profile and on_gpu:
                print(profile(stepper, 5), flush=True)
        del steppers, stepper


if __name__ == "__main__":
    main()
