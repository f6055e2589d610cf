"""Retrofitting a model that a user names, on data that a user brings."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hyperscale import models
from hyperscale.errors import ModelError, RetrofitError
from hyperscale.retrofit import memory_estimate
from hyperscale.utils.hub import load_config

Report = Callable[[str], None]
#: Learning rates of arXiv 2506.05345: up to 1.5B weights, and above.
LR_SMALL, LR_LARGE, SMALL = 1e-5, 3e-5, 2e9
RECORD = "training.json"


@dataclass(frozen=True)
class Job:
    """What to retrofit and how; see ``hyperscale retrofit --help``.

    Attributes:
        model: Name, folder or hub id.
        data: JSONL, Parquet or plain text, or a folder of them.
        out: Folder to write, which must be new or empty.
        crs: Compression ratios to leave a checkpoint at, ascending.
        steps_per_unit: Steps in which CR(t) rises by one.
        hard_steps: Steps with the gates of inference that finish each checkpoint.
        window: w of the delayed eviction.
        gate: "separate" or "borrowed", where gates read their logits.
        per: "head" or "layer", whose verdicts are their own.
        fade_steps: Steps, before all others, that fade borrowed neurons out; 2,000 in the paper.
        rows: Rows of a batch.
        length: Tokens of a row; 0 for 8192, or the model's context if that is shorter.
        accumulate: Batches of a step.
        lr: Learning rate of the weights; the paper's for the model's size if None.
        gate_lr: Learning rate of the projections.
        ledger: Ask for the ratio in reads and held entries rather than in evicted tokens.
        everything: Count prompts in the loss too.
        column: Column of the data.
        weights: Type of the student's weights, float32 or bfloat16.
        seed: Of data order and gate noise.
        device: As torch names it.
    """

    model: str
    data: Path
    out: Path
    crs: tuple[float, ...] = (8.0,)
    steps_per_unit: float = 100.0
    hard_steps: int = 150
    window: int = 256
    gate: str = "separate"
    per: str = "head"
    fade_steps: int = 2000
    rows: int = 1
    length: int = 0
    accumulate: int = 16
    lr: float | None = None
    gate_lr: float = 3e-5
    ledger: bool = False
    everything: bool = False
    column: str | None = None
    weights: str = "float32"
    seed: int = 0
    device: str = "cpu"

    def check(self) -> None:
        """Refuse settings that make no sense, before anything is read.

        Raises:
            RetrofitError: One does not.
        """
        if not self.crs or not all(math.isfinite(cr) and cr > 1 for cr in self.crs):
            given = ",".join(f"{cr:g}" for cr in self.crs) or "nothing"
            raise RetrofitError(f"--cr {given}: a compression ratio is above 1, e.g. --cr 8 or --cr 2,4,8")
        if list(self.crs) != sorted(set(self.crs)):
            raise RetrofitError("--cr names ratios in ascending order, each once: one run passes them all on its way")
        for option, value in (("steps-per-unit", self.steps_per_unit), ("gate-lr", self.gate_lr), ("lr", self.lr)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise RetrofitError(f"--{option} {value:g} is not above 0")
        for option, whole, least in (
            ("hard-steps", self.hard_steps, 0),
            ("window", self.window, 1),
            ("fade-steps", self.fade_steps, 0),
            ("rows", self.rows, 1),
            ("accumulate", self.accumulate, 1),
        ):
            if whole < least:
                raise RetrofitError(f"--{option} {whole} is below {least}")
        for option, choice, known in (
            ("weights", self.weights, tuple(memory_estimate.PER_WEIGHT)),
            ("gate", self.gate, ("separate", "borrowed")),
            ("per", self.per, ("head", "layer")),
        ):
            if choice not in known:
                raise RetrofitError(f"--{option} {choice!r} is not one of {', '.join(known)}")
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise RetrofitError(f"{self.out} exists and is not empty: nothing is overwritten, pass another --out")


def run(job: Job, report: Report) -> None:
    """Train, check and save; every message is a line of ``report``.

    Raises:
        RetrofitError: Settings, data or memory do not allow it, or the gate check refused a checkpoint.
        ModelError: The model is unknown, missing, of an unsupported kind or already retrofitted.
    """
    job.check()
    found = models.find(job.model)
    if found.shape and found.shape.parameters:  # told without any weights or configuration here
        known = memory_estimate.estimate(found.shape.parameters, job.weights)
        memory_estimate.require(known, job.model, job.weights, _device(job.device))
    from hyperscale.retrofit import text_files

    report(f"reading {job.data} …")
    source = text_files.read_texts(job.data, job.column)  # before the weights: a mistake about the data shows at once
    models.require(found.base, job.model)
    config = _configuration(found.base)
    length = _length(job, config)
    needed = memory_estimate.estimate(memory_estimate.parameters_of(config), job.weights, config, job.rows, length)
    device = _device(job.device)
    report(f"training takes about {needed}; {device[0]} has {device[1] / memory_estimate.GIB:,.0f} GiB")
    memory_estimate.require(needed, job.model, job.weights, device)
    _train(job, found.base, length, source, needed, report)


def _train(job: Job, base: str, length: int, source: Any, needed: memory_estimate.Estimate, report: Report) -> None:
    import torch
    import transformers

    from hyperscale.engines.loading import load_model
    from hyperscale.retrofit import checkpoints, outcome
    from hyperscale.retrofit.documents import build_corpus
    from hyperscale.retrofit.recipe import Recipe
    from hyperscale.retrofit.trainer import Finished, Retrofit

    separate = job.gate == "separate"
    recipe = Recipe(
        targets=job.crs,
        separate=separate,
        per="layer" if job.per == "layer" else "head",
        fade_steps=0 if separate else job.fade_steps,
        steps_per_unit=job.steps_per_unit,
        hard_steps=job.hard_steps,
        window=job.window,
        lr=job.lr or (LR_SMALL if needed.parameters < SMALL else LR_LARGE),
        gate_lr=job.gate_lr,
        warmup=max(1, min(20, job.hard_steps)),
        ledger=job.ledger,
        accumulate=job.accumulate,
        seed=job.seed,
    )
    on_gpu = torch.device(job.device).type == "cuda"
    report(f"loading {base} …")
    teacher, tokenizer = load_model(base, device="cpu", dtype=torch.bfloat16)
    # What is saved is bfloat16, so that is what the teacher is; CPUs compute with it in float32.
    teacher.to(job.device) if on_gpu else _widen(teacher)
    steps = round((job.crs[-1] - 1) * job.steps_per_unit) + job.hard_steps * len(job.crs) + recipe.fade_steps
    a_step = job.rows * job.accumulate * length
    report("tokenising …")
    corpus = build_corpus(
        source,
        tokenizer,
        length=length,
        window=job.window,
        training_tokens=steps * a_step,
        seed=job.seed,
        whole_chats=job.everything,
    )
    times = steps * a_step / max(corpus.tokens, 1)
    report(
        f"{len(corpus.train):,} documents, {corpus.tokens:,} tokens, seen {times:.1f} times; "
        f"{len(corpus.held_out):,} held out; {steps:,} steps of {a_step:,} tokens"
    )
    job.out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "model": job.model,
        "base": base,
        "data": {"path": str(source.path), "column": source.column, "entries": len(source.entries)},
        "documents": {"train": len(corpus.train), "held_out": len(corpus.held_out), "tokens": corpus.tokens},
        "length": length,
        "rows": job.rows,
        "loss": "all tokens" if job.everything or source.column == "text" else "last reply",
        "weights": job.weights,
        "recipe": asdict(recipe),
        "memory_gib": {"estimate": (needed.weights + needed.activations) / memory_estimate.GIB},
        "device": torch.cuda.get_device_name(job.device) if on_gpu else "cpu",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }

    def save(finished: Finished, name: str) -> None:
        checkpoints.save(finished.model, job.out / name, **finished.config.to_hf())
        tokenizer.save_pretrained(job.out / name)
        report(f"wrote {job.out / name}")

    def keep(records: list[outcome.Record]) -> None:
        if on_gpu:
            record["memory_gib"]["peak"] = torch.cuda.max_memory_allocated(job.device) / memory_estimate.GIB
        (job.out / RECORD).write_text(json.dumps({**record, "dms": records}, indent=1) + "\n", encoding="utf-8")

    dtype = torch.bfloat16 if job.weights == "bfloat16" else torch.float32
    retrofit = Retrofit(teacher, recipe, report=report, dtype=dtype, frugal=True)
    held_out = corpus.held_out_batches(job.rows, length)
    outcome.finish(retrofit, corpus.training_batches(job.rows, length, job.seed), held_out, save, keep)


def _widen(model: Any) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data.float()


def _device(device: str) -> tuple[str, int]:
    from hyperscale.engines.loading import check_device

    check_device(device)
    return memory_estimate.available(device)


def _configuration(base: str) -> Any:
    from hyperscale.engines.loading import check_config

    config = load_config(base)
    check_config(config)
    for key, kind in (("dms_window_size", "DMS"), ("dmc_cr", "DMC")):
        if getattr(config, key, None) is not None:
            raise ModelError(f"{base} is a {kind} checkpoint already: pass the original model")
    return config


def _length(job: Job, config: Any) -> int:
    context = int(getattr(config, "max_position_embeddings", 0) or 8192)
    length = job.length or min(8192, context)
    if not job.window + 2 < length <= context:
        raise RetrofitError(
            f"--length {length} does not lie between the window and the model's context: {job.window + 3} to {context}"
        )
    if job.device.startswith("cuda") and length % 128:
        raise RetrofitError(f"--length {length} is no multiple of 128, the block of the GPU's attention kernels")
    return length
