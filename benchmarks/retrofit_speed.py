"""Speed and memory of a retrofit's step on models of real shapes, with random weights, on one GPU or several.

Usage: python benchmarks/retrofit_speed.py --shape qwen2.5-1.5b --recipes paper,adapters
       torchrun --nproc-per-node 4 benchmarks/retrofit_speed.py --shape qwen2.5-32b --recipes paper --weights bfloat16
       python benchmarks/retrofit_speed.py --shape smollm2-135m --rows 16 --length 2048 --window 64
       python benchmarks/retrofit_speed.py --shape smollm2-135m --rows 16 --length 2048 --recipes paper --kernels 25
       python benchmarks/retrofit_speed.py --toy

A step is one batch of --rows rows for each process, of documents as long as the row, forward, backward and AdamW; its
median over --steps after two that compile. "plain" is a distillation of the same model without gates: a frozen teacher,
FlashAttention through torch's scaled_dot_product_attention, layers compiled, inputs of layers kept and the rest
computed again, the loss in parts. Tokens are of all processes. MFU counts what has to be computed, 2 FLOPs a weight and
token forward and 4 backward (2 where weights are frozen), teacher forward 2, and nothing that is computed again,
against --peak TFLOP/s a GPU. "paper+single" has gates and loss operation by operation, not compiled; "paper+kept" keeps
the activations instead of computing them again; "paper+flex" attends with FlexAttention instead of the project's
kernels (benchmarks/retrofit_attention.py has attention by itself); "paper+launched" launches each kernel of a small
model, whose steps are CUDA graphs otherwise. Several may be joined: "paper+kept+launched". "estimate" is what the
command tells before a training. --kernels N lists what the GPU does in two more steps: how long it works, and its N
longest kernels.
"""

import argparse
import gc
import itertools
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from vllm_throughput import SHAPES, shape

from hyperscale.retrofit import memory_estimate
from hyperscale.retrofit.attention.packed_attention import attends_fused, checkpoint_layers, compile_layers
from hyperscale.retrofit.gates.gated_model import decide_with_noise
from hyperscale.retrofit.losses import distillation_loss_in_parts
from hyperscale.retrofit.packing import TrainingBatch
from hyperscale.retrofit.parallel.ranks import Ranks, join_ranks, leave_ranks
from hyperscale.retrofit.parallel.sharded_loading import build_empty, restore_buffers
from hyperscale.retrofit.recipes import recipe_values
from hyperscale.retrofit.settings import Recipe
from hyperscale.retrofit.steps.optimizer import StochasticAdamW
from hyperscale.retrofit.trainer import Retrofit
from hyperscale.utils.device_copy import copy_to

_PLAIN = "plain"


def fill(model: Any, device: torch.device) -> None:
    """Random weights, gates at zero, as they start."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            own = parameter.to_local() if hasattr(parameter, "to_local") else parameter
            if "dms_proj_alpha." in name:
                own.zero_()
            elif "norm" in name:
                own.fill_(1.0)
            else:
                own.normal_(std=0.02)
    restore_buffers(model, device)


def batches(rows: int, length: int, vocabulary: int) -> Iterator[TrainingBatch]:
    """Rows of one document each."""
    position = torch.arange(length).expand(rows, length).contiguous()
    kind = torch.zeros_like(position)
    kind[:, -1] = -1
    for number in itertools.count():
        ids = torch.randint(0, vocabulary, (rows, length), generator=torch.Generator().manual_seed(number))
        yield TrainingBatch(ids, position, torch.zeros_like(ids), kind, (kind >= 0).float())


def build(arguments: argparse.Namespace, device: torch.device, ranks: Ranks) -> Any:
    """The model: empty for several processes, which fill their parts, else on the device."""
    model = build_empty(arguments.config, torch.bfloat16 if device.type == "cuda" else torch.float32)
    if ranks.count == 1:
        model.to_empty(device=device)
        fill(model, device)
    return model


def retrofit_step(arguments: argparse.Namespace, name: str, device: torch.device, ranks: Ranks) -> Callable[[], None]:
    """A step of a recipe, as the trainer makes it."""
    name, *variants = name.split("+")
    values = recipe_values(name) | {"window": arguments.window, "accumulate": ranks.count, "crs": (8.0,)}
    recipe = Recipe(**values)
    dtype = (
        torch.bfloat16 if arguments.weights == "bfloat16" or (name == "adapters" and ranks.count > 1) else torch.float32
    )
    training = Retrofit(
        build(arguments, device, ranks),
        recipe,
        report=lambda _: None,
        dtype=dtype if device.type == "cuda" else None,
        frugal=True,
        recompute="kept" not in variants,
        ranks=ranks,
        device=device,
        fill=lambda model: fill(model, device),
    )
    if "flex" in variants:
        training.distillation.fused = False
    if "single" in variants:
        training.distillation.compiled, training.gated._decide = False, decide_with_noise
    if {"flex", "single", "launched"} & {*variants}:
        training.graphs = None
    optimizer = training._optimizer(gates=True)
    data = batches(arguments.rows, arguments.length, arguments.config.vocab_size)

    def step() -> None:
        training.steps += 1
        training._step(optimizer, data, 4.0, lr_factor=1.0)

    return step


def plain_step(arguments: argparse.Namespace, device: torch.device) -> Callable[[], None]:
    """A step of a distillation without gates, on one device."""
    models = [build(arguments, device, Ranks()) for _ in range(2)]
    student, teacher = models
    bfloat16 = arguments.weights == "bfloat16" or device.type != "cuda"
    for parameter in student.parameters():
        parameter.data = parameter.data if bfloat16 else parameter.data.float()
    student.train().requires_grad_(True)
    for model in models:
        model.set_attn_implementation("sdpa")
        if device.type == "cuda":
            compile_layers(model)
    checkpoint_layers(student)
    parameters = list(student.parameters())
    optimizer: torch.optim.Optimizer
    if parameters[0].dtype == torch.bfloat16:
        optimizer = StochasticAdamW([{"params": parameters, "lr": 1e-5}])
    else:
        optimizer = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.0, fused=device.type == "cuda")
    data = batches(arguments.rows, arguments.length, arguments.config.vocab_size)

    def step() -> None:
        batch = next(data)
        ids, position = copy_to(batch.ids, device), copy_to(batch.position, device)
        inputs = {"input_ids": ids, "position_ids": position, "use_cache": False}
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            with torch.no_grad():
                taught = teacher.model(**inputs).last_hidden_state
            hidden = student.model(**inputs).last_hidden_state
            loss = distillation_loss_in_parts(
                hidden, taught, student.lm_head, teacher.lm_head, copy_to(batch.weight, device),
                counted=batch.counted().to(device), compiled=device.type == "cuda",
            )  # fmt: skip
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def measure(arguments: argparse.Namespace, name: str, device: torch.device, ranks: Ranks) -> str:
    """A line of the table."""
    torch._dynamo.reset()  # graphs of the recipe before would count towards the most that are kept
    on_gpu = device.type == "cuda"
    gc.collect()  # models are cycles: the one before would lie in the memory of this one
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    step = plain_step(arguments, device) if name == _PLAIN else retrofit_step(arguments, name, device, ranks)
    seconds = []
    for number in range(arguments.steps + 2):
        start = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize(device)
        if number >= 2:
            seconds.append(time.perf_counter() - start)
    tokens = arguments.rows * arguments.length * ranks.count / median(seconds)
    config, frozen = arguments.config, name.startswith(("adapters", "lora"))
    parameters = memory_estimate.count_parameters(config)
    flops = (2 + 2 + (2 if frozen else 4)) * parameters * tokens
    peak = torch.cuda.max_memory_allocated(device) / memory_estimate.GIB if on_gpu else 0.0
    default_fused = attends_fused(memory_estimate.head_dim_of(config), device)
    estimate = memory_estimate.estimate_memory(
        parameters, arguments.weights, config, arguments.rows, arguments.length, frozen=frozen, gpus=ranks.count,
        kept="+kept" in name,
        fused=default_fused and "+flex" not in name,
        recorded=not any("+" + how in name for how in ("launched", "single")),
    )  # fmt: skip
    told = (estimate.weights + estimate.activations) / memory_estimate.GIB
    mfu = flops / (arguments.peak * 1e12 * ranks.count)
    told_kernels = longest_kernels(step, arguments.kernels) if on_gpu and arguments.kernels else ""
    return (
        f"{name:<20} {1e3 * median(seconds):9.0f} ms a step  {tokens:9.0f} tokens/s  MFU {mfu:5.1%}  "
        f"peak {peak:6.1f} GiB a GPU  estimate {told:6.1f}"
        f"{told_kernels}"
    )


def longest_kernels(step: Callable[[], None], count: int, steps: int = 2) -> str:
    """Milliseconds of the GPU in a step, all together and of its longest kernels, a line each."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    kernels = sorted(profiler.key_averages(), key=lambda kernel: -kernel.self_device_time_total)
    total = sum(kernel.self_device_time_total for kernel in kernels) / 1e3 / steps
    lines = [f"\n    {total:8.2f} ms of the GPU a step, {sum(kernel.count for kernel in kernels) // steps} launches"]
    lines += [
        f"    {kernel.self_device_time_total / 1e3 / steps:8.2f} in {kernel.count // steps:5d} x {kernel.key[:110]}"
        for kernel in kernels[:count]
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-1.5b")
    parser.add_argument("--layers", type=int, default=0, help="all of the real model's, or fewer")
    parser.add_argument(
        "--recipes", default=f"{_PLAIN},paper,adapters", help=f"recipes, and {_PLAIN}, which wants one GPU"
    )
    parser.add_argument("--weights", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rows", type=int, default=1, help="of each process")
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--kernels", type=int, default=0, help="of the GPU to list by their time")
    parser.add_argument("--peak", type=float, default=989, help="dense bfloat16 TFLOP/s of a GPU (H100, H200: 989)")
    parser.add_argument("--toy", action="store_true", help="a tiny model on the CPU")
    arguments = parser.parse_args()
    from transformers import AutoConfig

    if arguments.toy:
        arguments.length, arguments.window, arguments.steps = 256, 16, 2
    arguments.config = AutoConfig.for_model(SHAPES[arguments.shape][0], **shape(arguments))
    ranks, name = join_ranks("cpu" if arguments.toy or not torch.cuda.is_available() else "cuda")
    device = torch.device(name)
    for recipe in arguments.recipes.split(","):
        line = measure(arguments, recipe, device, ranks)
        if ranks.is_first:
            print(f"{ranks.count} x {line}", flush=True)
    leave_ranks()


if __name__ == "__main__":
    main()
