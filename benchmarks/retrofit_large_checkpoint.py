r"""A checkpoint of a large model, made and run by the product's own commands.

Usage: python benchmarks/retrofit_large_checkpoint.py --work /dev/shm/large            # Qwen2.5-32B's shape, one GPU
       python benchmarks/retrofit_large_checkpoint.py --work DIR --shape qwen2.5-7b
       python benchmarks/retrofit_large_checkpoint.py --work DIR --recipe paper --weights bfloat16 --gpus 4 --part train
       python benchmarks/retrofit_large_checkpoint.py --work DIR --part run            # with what that command left
       python benchmarks/retrofit_large_checkpoint.py --work DIR … --methods vanilla,dms --engines 4 --context 8192
       python benchmarks/retrofit_large_checkpoint.py --toy                            # a tiny one, on the CPU

1. writes a folder of the shape with random bfloat16 weights in several files, and texts of random token ids;
2. `hyperscale retrofit --recipe RECIPE` (adapters) makes OUT of it, in a few steps of rows as long as real ones;
3. `hyperscale run --method METHODS` (dms) decodes with what was written: prompts of --context tokens, which may be
   evicted, and --tokens more, greedily, in as many engines as GPUs allow.

It tells the seconds of each phase, the memory estimated before the training and its peak, of one GPU, tokens/s and MFU
of the steps after the first, which compiles, and what the run generated and read, against what a full cache would have
read. MFU counts what `retrofit_speed.py` counts. With --part the third step is a command of its own, which may have
other GPUs than the first two. Nothing is learned from random texts in a few steps: the gates' rate is high only so that
they evict something at all, and a checkpoint that the gate check refuses takes the name of an accepted one, which the
table says.

"tokens/s of all chains" is of a run that gives all its chains out at once: their tokens by the seconds of the longest
one, prefill included.

Every recipe writes a whole model, the base's weights and the gates. DIR holds one copy at a time: the base's weights
are removed as soon as the training has loaded them, before its checkpoint is written, unless METHODS has another than
dms, which needs them. So a DIR in memory (/dev/shm) takes 2 bytes a weight (4 with the base's), 61 GiB of 32.8 B, and
some GiB more for a file that is being written; a DIR that is too small is refused. DIR is removed at the end unless
--keep is passed, or --part train.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from dummy_weights import write_folder
from vllm_throughput import SHAPES, shape

GIB = 2**30
#: Bytes of a file of weights, and processes that write one each.
SHARD, WRITERS = 4 * GIB, 4
CR = 8
#: Begins the names of folders in --work.
PREFIX = "retrofit-"
#: Beside what DIR has to hold: texts, tokenizers, results.
SPARE = 2 * GIB
#: Lines of `hyperscale retrofit` that begin a phase: what they contain, and the phase.
MARKS = (
    ("loading ", "loading the base"),
    ("tokenising", "first step, compiled"),
    (" step     1 ", "further steps"),
    ("DMS 8x after", "saving"),
    ("wrote ", "ending"),
)


class Timed(NamedTuple):
    """A phase and how long it took."""

    name: str
    seconds: float


# --- the base ---


def write_base(folder: Path, sizes: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Write configuration, tokenizer and weights; the bytes of the weights."""
    from hyperscale.engines.weights_check import expected_shapes

    model_type = SHAPES[arguments.shape][0]
    write_folder(folder, model_type, sizes)
    from transformers import AutoConfig

    shapes = expected_shapes(AutoConfig.from_pretrained(folder))
    if sizes.get("tie_word_embeddings"):
        del shapes["lm_head.weight"]
    shards = split(shapes, 1 << 18 if arguments.toy else SHARD)
    copies = 1 if arguments.methods == "dms" else 2
    require_room(folder, copies * sum(map(count_bytes, shapes.values())))
    files = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    # Processes, not threads: safetensors writes under Python's lock.
    with ProcessPoolExecutor(1 if arguments.toy else WRITERS, mp_context=get_context("spawn")) as pool:
        written = [
            pool.submit(write_shard, folder / file, shard, arguments.device, seed)
            for seed, (file, shard) in enumerate(zip(files, shards, strict=True))
        ]
        total = sum(one.result() for one in written)
    places = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return total


def count_bytes(shape: tuple[int, ...]) -> int:
    """Of a bfloat16 tensor."""
    size = 2
    for length in shape:
        size *= length
    return size


def split(shapes: dict[str, tuple[int, ...]], most: int) -> list[dict[str, tuple[int, ...]]]:
    """Tensors in their order, parted into files of at most so many bytes each; a larger tensor has its own."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    room = most
    for name, of_tensor in shapes.items():
        size = count_bytes(of_tensor)
        if size > room and shards[-1]:
            shards.append({})
            room = most
        shards[-1][name] = of_tensor
        room -= size
    return shards


def write_shard(file: Path, shapes: dict[str, tuple[int, ...]], device: str, seed: int) -> int:
    """Draw a file's tensors on the device and write them; their bytes."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    tensors = {}
    for name, of_tensor in shapes.items():
        tensor = torch.empty(of_tensor, dtype=torch.bfloat16, device=device)
        tensors[name] = tensor.fill_(1.0) if "norm" in name else tensor.normal_(std=0.02)
    save_file(tensors, file, metadata={"format": "pt"})
    return sum(map(count_bytes, shapes.values()))


def require_room(folder: Path, needed: int) -> None:
    """End here if a copy of the weights does not fit."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        sys.exit(
            f"{folder} has {free / GIB:.0f} GiB free, and {(needed + SPARE) / GIB:.0f} are needed: pass another --work,"
            " or enlarge it, e.g. mount -o remount,size=100G /dev/shm"
        )


def write_texts(work: Path, vocabulary: int, arguments: argparse.Namespace) -> None:
    """Documents of ids, as long as a row, for the training."""
    rng = Random(0)
    with (work / "ids.jsonl").open("w", encoding="utf-8") as file:
        # Two more than the steps see: one is held out, and one is a margin.
        for _ in range(arguments.steps * arguments.accumulate + 2):
            ids = [rng.randrange(vocabulary) for _ in range(arguments.length)]
            file.write(json.dumps({"ids": ids}) + "\n")


# --- the product's commands ---


def environment() -> dict[str, str]:
    """Of the commands: their lines come whole, and at once."""
    return os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"}


def run_retrofit(work: Path, arguments: argparse.Namespace) -> list[Timed]:
    """Train and write the checkpoint; the base's weights go once they are loaded."""
    base, out = work / "base", work / "out"
    command = [sys.executable, "-m", "hyperscale.cli", "retrofit", "--model", str(base), "--out", str(out)]
    command += ["--recipe", arguments.recipe, "--data", str(work / "ids.jsonl"), "--column", "ids", "--cr", f"{CR}"]
    command += ["--weights", arguments.weights, "--gpus", str(arguments.gpus)]
    command += ["--length", str(arguments.length), "--window", str(arguments.window), "--rows", "1"]
    command += ["--accumulate", str(arguments.accumulate), "--steps-per-unit", f"{arguments.steps / (CR - 1):.6f}"]
    command += ["--gate-lr", f"{arguments.gate_lr:g}", "--hard-steps", "0", "--device", arguments.device]
    print("$", " ".join(command[1:]), flush=True)
    phases: list[Timed] = []
    phase, began = "starting the retrofit", time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment()
    )
    assert process.stdout is not None
    marks = list(MARKS)
    for line in process.stdout:
        print("  ", line, end="", flush=True)
        if marks and marks[0][0] in line:
            now = time.monotonic()
            phases.append(Timed(phase, now - began))
            phase, began = marks.pop(0)[1], now
            # One process has loaded them when it begins to tokenise; several fill their parts after that.
            loaded = phase == ("first step, compiled" if arguments.gpus == 1 else "further steps")
            if loaded and arguments.methods == "dms":
                for file in base.glob("*.safetensors"):
                    file.unlink()
        elif phase == "further steps" and f" step {arguments.steps:5d} " in line:
            now = time.monotonic()
            phases.append(Timed(phase, now - began))
            phase, began = "gate check", now
    code = process.wait()
    phases.append(Timed(phase, time.monotonic() - began))
    if code not in (0, 2) or marks:  # 2: it may be the gate check's refusal
        sys.exit(f"hyperscale retrofit ended with exit code {code}")
    return phases


def run_tasks(work: Path, arguments: argparse.Namespace) -> int:
    """Decode with the checkpoint; the command's exit code."""
    command = [sys.executable, "-m", "hyperscale.cli", "run", "--model", str(work / "out")]
    command += ["--method", arguments.methods, "--seed", "0"]
    command += ["--cr", f"{CR}", "--engine", arguments.engine, "--device", arguments.device]
    command += ["--task", "niah_single", "--context", str(arguments.context), "--temperature", "0"]
    command += ["--limit", str(arguments.limit), "--length", str(arguments.tokens)]
    command += ["--budget", "all", "--grid", "one", "--out", str(arguments.out or work / "run")]
    if arguments.engine == "vllm" and arguments.device != "cpu":
        command += ["--compilation", arguments.compilation, "--gpu-memory", str(arguments.gpu_memory)]
    for option in ("engines", "tensor_parallel", "batch_size"):
        if (number := getattr(arguments, option)) is not None:
            command += ["--" + option.replace("_", "-"), str(number)]
    print("$", " ".join(command[1:]), flush=True)
    return subprocess.run(command, env=environment(), check=False).returncode


# --- what they tell ---


def tell_training(out: Path, arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Lines of the table on the training; a refused checkpoint takes the name of an accepted one."""
    from hyperscale.retrofit.reporting.metrics_file import read_metrics
    from hyperscale.retrofit.reporting.records import TrainingRecord

    record = TrainingRecord.read(out)
    (made,) = record.dms
    if made.refused:
        (out / f"refused-dms{CR}").rename(out / f"dms{CR}")
    first, *_, last = read_metrics(out)
    pace = (last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"])
    written = sum(file.stat().st_size for file in (out / f"dms{CR}").glob("*.safetensors"))
    files = len(list((out / f"dms{CR}").glob("*.safetensors")))
    memory = record.memory_gib
    mfu = flops_per_token(out / f"dms{CR}", arguments) * pace / (arguments.peak * 1e12 * arguments.gpus)
    return [
        ("device", record.device),
        ("GPUs", str(arguments.gpus)),
        ("recipe", f"{arguments.recipe}, {arguments.weights} weights"),
        ("memory estimated", f"{memory['estimate']:.1f} GiB"),
        ("memory at the peak", f"{memory['peak']:.1f} GiB" if "peak" in memory else "· (a CPU)"),
        ("training", f"{pace:,.0f} tokens/s ({last['done'] - first['done']} steps after the first)"),
        ("MFU", f"{mfu:.1%} of {arguments.peak:g} TFLOP/s a GPU"),
        ("KL under inference's gates", f"{made.kl_hard:.4f} nats/token"),
        ("ratio reached on held-out text", f"{made.reached_cr:.2f}"),
        ("gate check", "refused, renamed to be run all the same" if made.refused else "accepted"),
        ("checkpoint", f"{written / 1e9:.2f} GB in {files} files"),
    ]


def flops_per_token(checkpoint: Path, arguments: argparse.Namespace) -> float:
    """What has to be computed for a token: teacher and student forward, and what trains backward."""
    from transformers import AutoConfig

    from hyperscale.retrofit.memory_estimate import count_parameters

    frozen = arguments.recipe != "paper"
    return (2 + 2 + (2 if frozen else 4)) * count_parameters(AutoConfig.from_pretrained(checkpoint))


def tell_run(folder: Path) -> list[tuple[str, str]]:
    """Lines of the table on the run."""
    from hyperscale import results

    (run,) = results.read(folder)
    lines = []
    for point in run.points():
        costs = {name: float(point.costs[name].mean()) for name in ("tokens", "seconds", "kv_reads", "peak_kv")}
        full, count = costs["kv_reads"] * point.realised_cr, len(point.problems)
        told = [
            ("engine", point.series.engine),
            ("generated", f"{costs['tokens']:,.0f} tokens a chain, {count} chains"),
            ("decoding", f"{costs['tokens'] / costs['seconds']:,.1f} tokens/s a chain"),
            ("tokens/s of all chains", f"{costs['tokens'] * count / float(point.costs['seconds'].max()):,.0f}"),
            ("KV reads", f"{costs['kv_reads']:,.0f} of {full:,.0f} by a full cache ({point.realised_cr:.2f}x less)"),
            ("seconds of decoding", f"{costs['seconds']:.1f}"),
            ("peak KV", f"{costs['peak_kv']:,.0f} tokens"),
        ]
        lines += [(f"{point.series.method}: {label}", value) for label, value in told]
    return lines


def main() -> int:
    """Make, run, tell; the exit code of the run."""
    arguments = parse()
    began = time.monotonic()
    if arguments.work is not None:
        arguments.work.mkdir(parents=True, exist_ok=True)
    # A folder of its own, so that nothing of the user's is removed.
    work = find_work(arguments)
    phases: list[Timed] = []
    lines: list[tuple[str, str]] = []
    code = 0
    try:
        if arguments.part != "run":
            sizes = shape(arguments)
            total = write_base(work / "base", sizes, arguments)
            write_texts(work, sizes["vocab_size"], arguments)
            phases = [Timed("writing the base and texts", time.monotonic() - began)]
            print(f"wrote {total / 1e9:.2f} GB of weights in {phases[0].seconds:.0f} s", flush=True)
            phases += run_retrofit(work, arguments)
            lines += [("weights", f"{total / 2e9:.2f} B"), *tell_training(work / "out", arguments)]
        if arguments.part != "train":
            started = time.monotonic()
            code = run_tasks(work, arguments)
            phases.append(Timed("hyperscale run", time.monotonic() - started))
            lines += (
                tell_run(arguments.out or work / "run")
                if code == 0
                else [("hyperscale run", f"failed, exit code {code}")]
            )
    finally:
        if not arguments.keep and arguments.part != "train":
            shutil.rmtree(work, ignore_errors=True)
    lines += [(f"seconds: {phase.name}", f"{phase.seconds:.1f}") for phase in phases]
    lines.append(("seconds: all", f"{time.monotonic() - began:.1f}"))
    print(f"\n| {'toy' if arguments.toy else arguments.shape} | |\n|---|---|")
    print("\n".join(f"| {label} | {value} |" for label, value in lines), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(dict(lines), indent=1) + "\n", encoding="utf-8")
    return code


def find_work(arguments: argparse.Namespace) -> Path:
    """A new folder in --work, or for the second part the one that the first part left there."""
    if arguments.part != "run":
        return Path(tempfile.mkdtemp(prefix=PREFIX, dir=arguments.work))
    left = [folder for folder in (arguments.work or Path()).glob(f"{PREFIX}*") if (folder / "out").is_dir()]
    if len(left) != 1:
        sys.exit(f"--part run wants the --work of one --part train: {arguments.work} holds {len(left)} of them")
    return left[0]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for a folder with everything")
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-32b")
    parser.add_argument("--layers", type=int, help="fewer than the shape has")
    parser.add_argument("--recipe", choices=("adapters", "lora", "paper"), default="adapters")
    parser.add_argument("--weights", choices=("float32", "bfloat16"), default="float32", help="type of what trains")
    parser.add_argument("--gpus", type=int, default=1, help="that share the training; processes on a CPU")
    parser.add_argument("--part", choices=("all", "train", "run"), default="all", help="train, decode, or both")
    parser.add_argument("--peak", type=float, default=989, help="dense bfloat16 TFLOP/s of a GPU (H100, H200: 989)")
    parser.add_argument("--length", type=int, default=8192, help="tokens of a row of the training")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--accumulate", type=int, default=1, help="rows of a step")
    parser.add_argument("--gate-lr", type=float, default=3e-3)
    parser.add_argument("--context", type=int, default=1024, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=256, help="most tokens of a chain")
    parser.add_argument("--limit", type=int, default=2, help="prompts")
    parser.add_argument("--methods", default="dms", help="that decode; one beside dms keeps the base's weights there")
    parser.add_argument("--engines", type=int, help="side by side (all that the GPUs allow)")
    parser.add_argument("--tensor-parallel", type=int, help="GPUs that share one engine of vLLM")
    parser.add_argument("--batch-size", type=int, help="chains of an engine at once")
    parser.add_argument("--engine", choices=("vllm", "torch"), default="vllm" if find_spec("vllm") else "torch")
    parser.add_argument("--compilation", choices=("auto", "none", "graphs", "full"), default="auto", help="of vLLM")
    parser.add_argument("--gpu-memory", type=float, default=0.9, help="part of a GPU's memory for vLLM")
    parser.add_argument("--out", type=Path, help="folder for the run's results (in --work)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, help="file for the table")
    parser.add_argument("--keep", action="store_true", help="leave the folder there")
    parser.add_argument("--toy", action="store_true", help="a tiny model on the CPU, to try the program")
    arguments = parser.parse_args()
    if arguments.steps < 2:
        parser.error("--steps must be at least 2: the first one compiles")
    if arguments.toy:
        arguments.device = "cpu"
        arguments.length, arguments.window, arguments.context, arguments.tokens = 256, 32, 320, 32
    elif arguments.work is None:
        parser.error("--work is needed: a folder with room for the weights once")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
