"""The roofline of a GPU: how fast chains decode at best, and how many fit, from datasheet figures.

A decode step of B chains with n live entries each (mean over layers and KV heads) takes

    max((2 · weights + 4 · layers · heads · D · n) · B / peak FLOP/s,
        (weight bytes + entry bytes · n · B) / bandwidth)

without the weights of a separate token embedding, of which a step reads only a few rows (arXiv 2506.05345, appendix I,
where it reads 1.5e10 · B + 5.24e5 · B · n FLOPs and 1.5e10 + 1.31e5 · B · n bytes for Llama 3.1 8B). It is a bound, not
a forecast: kernels reach a part of it, and prefill, sampling and the host are not counted.
"""

import re
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from hyperscale.errors import ConfigError
from hyperscale.kv.formats import AUTO
from hyperscale.models.shape import Shape
from hyperscale.planning.costs import Costs
from hyperscale.utils.validation import validate
from hyperscale.utils.yaml_files import read_yaml

GIB = 2**30
USABLE = 0.9  # of a GPU's memory: the rest is for activations and the allocator
_GROUP = 4  # query heads per KV head where a model's are unknown; decoding is bound by memory for any true value
_FILE = Path(__file__).resolve().parent / "gpus.yaml"
_REMEDY = "a GPU has memory in GiB, bandwidth in TB/s, tflops by dtype and shared_memory in KiB"


class GpuFigures(BaseModel):
    """An entry of ``gpus.yaml``.

    Attributes:
        memory: GiB that a process sees.
        bandwidth: TB/s of the memory.
        tflops: dtype to dense peak in TFLOP/s.
        shared_memory: KiB that a block of threads may have; None if unknown.
    """

    model_config = ConfigDict(extra="forbid")

    memory: float = Field(gt=0)
    bandwidth: float = Field(gt=0)
    tflops: dict[str, float]
    shared_memory: int | None = Field(None, gt=0)


@dataclass(frozen=True)
class Gpu:
    """A GPU to plan for.

    Attributes:
        name: Its name.
        memory: Bytes that a process sees.
        bandwidth: Of its memory, in bytes per second; None if unknown.
        flops: dtype to dense peak in FLOP/s.
        shared_memory: Bytes that a block of threads may have; None if unknown.
    """

    name: str
    memory: float
    bandwidth: float | None = None
    flops: tuple[tuple[str, float], ...] = ()
    shared_memory: int | None = None

    def times(self, count: int) -> "Gpu":
        """So many of them that share an engine, as if what they tell each other took no time."""
        if count == 1:
            return self
        bandwidth = None if self.bandwidth is None else self.bandwidth * count
        flops = tuple((dtype, figure * count) for dtype, figure in self.flops)
        return Gpu(f"{count} × {self.name}", self.memory * count, bandwidth, flops, self.shared_memory)


@cache
def known_gpus() -> dict[str, Gpu]:
    """The GPUs of ``gpus.yaml``, by the names people use.

    Raises:
        ConfigError: The file is malformed.
    """
    file = read_yaml(_FILE, ConfigError, _REMEDY)
    gpus = {}
    for name, values in file.values.items():
        figures = validate(GpuFigures, values, ConfigError, file.place((name,)), _REMEDY)
        peaks = dict(figures.tflops)
        if "bfloat16" in peaks:
            peaks.setdefault("float16", peaks["bfloat16"])  # matrix units are as fast in both
        flops = tuple((dtype, peak * 1e12) for dtype, peak in peaks.items())
        shared = None if figures.shared_memory is None else figures.shared_memory * 1024
        gpus[name] = Gpu(name, figures.memory * GIB, figures.bandwidth * 1e12, flops, shared)
    return gpus


def find_gpu(text: str) -> Gpu:
    """A GPU by its name, in any spelling, or by its memory, ``48GiB``.

    Raises:
        ConfigError: It is neither.
    """
    gpus = {_plain(name): gpu for name, gpu in known_gpus().items()}
    if gpu := gpus.get(_plain(text)):
        return gpu
    if (size := re.fullmatch(r"(\d+(?:\.\d+)?)\s*Gi?B", text)) and float(size[1]) > 0:
        return Gpu(text, float(size[1]) * (GIB if "i" in text else 1e9))
    raise ConfigError(f"unknown GPU {text!r}: choose one of {', '.join(known_gpus())}, or give its memory like 48GiB")


def identify_gpu(device: str, memory: float) -> Gpu:
    """The GPU that a driver calls ``device``, with the memory it really has; without figures if it is not known.

    Of the known names that occur in ``device`` the one with the nearest memory counts: an A100 of 40 GB is an A100-40.
    """
    # "NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 4090", "Tesla_A100-PCIE-40GB": any word may be the name.
    words = re.split(r"[\s_-]+", device.upper())
    words += [first + second for first, second in pairwise(words)]  # "RTX 4090" is RTX4090
    family = [gpu for name, gpu in known_gpus().items() if name.upper().split("-")[0] in words]
    if "PCIE" in words and any("PCIe" in gpu.name for gpu in family):
        family = [gpu for gpu in family if "PCIe" in gpu.name]
    # A memory within a tenth of the datasheet's is the same card; of two such cards the one that is not PCIe.
    nearest = min(family, key=lambda gpu: (abs(gpu.memory - memory) > 0.1 * memory, "PCIe" in gpu.name), default=None)
    return Gpu(device, memory) if nearest is None else replace(nearest, name=device, memory=memory)


def _plain(name: str) -> str:
    """A name without spaces, dashes and case."""
    return re.sub(r"[\s_-]", "", name).upper()


@dataclass(frozen=True)
class Roofline:
    """A model on a GPU.

    Attributes:
        gpu: The GPU; its bandwidth and its peak for the dtype are known.
        shape: The model; its number of weights is known.
        dtype: Of weights and arithmetic, and of the cache if ``kv_dtype`` is "auto".
        kv_dtype: Type of the cache; dequantising it is taken to cost no time.
        entry_bytes: Bytes of one (key, value) pair summed over layers and KV heads, where that is not the shape's for
            this type of the cache; else 0.
        usable: Part of the GPU's memory that weights and cache may take.
    """

    gpu: Gpu
    shape: Shape
    dtype: str
    kv_dtype: str = AUTO
    entry_bytes: int = 0
    usable: float = USABLE

    @classmethod
    def of(
        cls,
        gpu: Gpu | None,
        shape: Shape,
        dtype: str,
        kv_dtype: str = AUTO,
        entry_bytes: int = 0,
        usable: float = USABLE,
    ) -> "Roofline | None":
        """The roofline, or None where a figure it needs is unknown."""
        if gpu is None or gpu.bandwidth is None or dtype not in dict(gpu.flops) or shape.parameters is None:
            return None
        return cls(gpu, shape, dtype, kv_dtype, entry_bytes, usable)

    def step_flops(self, batch: float, entries: float) -> float:
        """FLOPs of a decode step of ``batch`` chains with so many live ``entries`` each."""
        shape = self.shape
        heads = shape.heads or _GROUP * shape.kv_heads
        # Two per weight (multiply, add); in attention two for the logits and two for the weighted sum of the values.
        attention = 4 * shape.layers * heads * shape.head_dim * entries
        return (2 * ((shape.parameters or 0) - shape.embedding) + attention) * batch

    def step_bytes(self, batch: float, entries: float) -> float:
        """Bytes that a decode step reads: the weights once for the whole batch, the cache of each chain."""
        weights = (self.shape.weight_bytes(self.dtype) or 0) - self.shape.embedding * self._weight_size
        entry_bytes = self.entry_bytes or self.shape.entry_bytes(self.dtype, self.kv_dtype)
        return weights + entry_bytes * entries * batch

    def step_seconds(self, batch: float, entries: float) -> float:
        """Seconds of a decode step."""
        return max(self._compute_seconds(batch, entries), self._memory_seconds(batch, entries))

    def bound(self, batch: float, entries: float) -> str:
        """What limits a decode step: "memory" or "compute"."""
        compute, memory = self._compute_seconds(batch, entries), self._memory_seconds(batch, entries)
        return "compute" if compute > memory else "memory"

    def max_batch(self, chain: Costs) -> int:
        """The most chains whose peaks fit beside the weights; 0 if none does."""
        return chains_that_fit(self.gpu, self.shape.weight_bytes(self.dtype) or 0, chain.peak_bytes, self.usable)

    def chain_seconds(self, chain: Costs, batch: int) -> float:
        """Time that a chain takes where so many of its kind share the GPU; infinite if it does not fit.

        If fewer chains fit than requested, they run in turns and the waiting time is included; otherwise a cache too
        large for the GPU would look fast, because a step of few chains is short.
        """
        # Of `batch` chains `fitting` run at a time, in batch / fitting turns.
        fitting = min(batch, self.max_batch(chain))
        if not fitting:
            return float("inf")
        return chain.tokens * self.step_seconds(fitting, mean_entries(chain)) * batch / fitting

    @property
    def _weight_size(self) -> int:
        """Bytes of one weight."""
        return (self.shape.weight_bytes(self.dtype) or 0) // max(self.shape.parameters or 1, 1)

    def _compute_seconds(self, batch: float, entries: float) -> float:
        return self.step_flops(batch, entries) / dict(self.gpu.flops)[self.dtype]

    def _memory_seconds(self, batch: float, entries: float) -> float:
        assert self.gpu.bandwidth is not None, "no roofline without a bandwidth"
        return self.step_bytes(batch, entries) / self.gpu.bandwidth


def mean_entries(chain: Costs) -> float:
    """Live entries that a chain attends to in a step, mean over its steps."""
    return chain.kv_reads / max(chain.tokens - 1, 1)


def chains_that_fit(gpu: Gpu, weights: float, chain: float, usable: float = USABLE) -> int:
    """The most chains whose caches of ``chain`` bytes each fit beside ``weights`` bytes; 0 if none does.

    ``usable`` is the part of the GPU's memory that the two may take.
    """
    return max(int((gpu.memory * usable - weights) // max(chain, 1)), 0)
