"""The roofline of a GPU: how fast chains decode at best, and how many fit, from datasheet figures.

A decode step of B chains with n live entries each (mean over layers and KV heads) takes

    max((2 · weights + 4 · layers · heads · D · n) · B / peak FLOP/s,
        (weight bytes + entry bytes · n · B) / bandwidth)

with weights and bytes without a token embedding of its own, which a step only looks up (arXiv 2506.05345, appendix I,
where it reads 1.5e10 · B + 5.24e5 · B · n FLOPs and 1.5e10 + 1.31e5 · B · n bytes for Llama 3.1 8B). A bound, not a
forecast: kernels reach a part of it. Prefill, sampling and the host are not counted.
"""

import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from hyperscale.errors import ConfigError
from hyperscale.kv.formats import AUTO
from hyperscale.models.shape import Shape
from hyperscale.planning.budget import Costs

GIB = 2**30
USABLE = 0.9  # of a GPU's memory: the rest is for activations and the allocator
_GROUP = 4  # query heads per KV head where a model's are unknown; decoding is bound by memory for any true value
_FILE = Path(__file__).resolve().parent / "gpus.yaml"


@dataclass(frozen=True)
class Gpu:
    """A GPU to plan for.

    Attributes:
        name: Its name.
        memory: Bytes that a process sees.
        bandwidth: Of its memory, in bytes per second; None if unknown.
        flops: dtype to dense peak in FLOP/s.
    """

    name: str
    memory: float
    bandwidth: float | None = None
    flops: tuple[tuple[str, float], ...] = ()


@cache
def known() -> dict[str, Gpu]:
    """The GPUs of ``gpus.yaml``, by the names people use."""
    import yaml

    raw = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {
        name: Gpu(
            name,
            entry["memory"] * GIB,
            entry["bandwidth"] * 1e12,
            tuple((dtype, peak * 1e12) for dtype, peak in entry["tflops"].items()),
        )
        for name, entry in raw.items()
    }


def named(gpu: str) -> Gpu:
    """A GPU by its name, in any spelling, or by its memory.

    Raises:
        ConfigError: It is neither.
    """
    names = {_plain(name): each for name, each in known().items()}
    if found := names.get(_plain(gpu)):
        return found
    if (size := re.fullmatch(r"(\d+(?:\.\d+)?)\s*Gi?B", gpu)) and float(size[1]) > 0:
        return Gpu(gpu, float(size[1]) * (GIB if "i" in gpu else 1e9))
    raise ConfigError(f"unknown GPU {gpu!r}: choose one of {', '.join(known())}, or give its memory like 48GiB")


def recognised(device: str, memory: float) -> Gpu:
    """The GPU that a driver calls ``device``, with the memory it really has; without figures if it is not known.

    Of the known names that ``device`` holds the one whose memory is nearest counts, so an A100 of 40 GB is one.
    """
    words = re.split(r"[\s_-]+", device.upper())
    words += [one + other for one, other in pairwise(words)]
    family = [gpu for name, gpu in known().items() if name.upper().split("-")[0] in words]
    if "PCIE" in words and any("PCIe" in gpu.name for gpu in family):
        family = [gpu for gpu in family if "PCIe" in gpu.name]
    best = min(family, key=lambda gpu: (abs(gpu.memory - memory) > 0.1 * memory, "PCIe" in gpu.name), default=None)
    return Gpu(device, memory) if best is None else Gpu(device, memory, best.bandwidth, best.flops)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).upper()


@dataclass(frozen=True)
class Roofline:
    """A model on a GPU.

    Attributes:
        gpu: The GPU; its bandwidth and its peak for the dtype are known.
        shape: The model; its number of weights is known.
        dtype: Of weights and arithmetic, and of the cache if ``kv_dtype`` is "auto".
        kv_dtype: What the cache is kept in; reading it back takes no time.
    """

    gpu: Gpu
    shape: Shape
    dtype: str
    kv_dtype: str = AUTO

    @classmethod
    def of(cls, gpu: Gpu | None, shape: Shape, dtype: str, kv_dtype: str = AUTO) -> "Roofline | None":
        """The roofline, or None where a figure it needs is unknown."""
        if gpu is None or gpu.bandwidth is None or dtype not in dict(gpu.flops) or shape.parameters is None:
            return None
        return cls(gpu, shape, dtype, kv_dtype)

    def flops(self, batch: float, entries: float) -> float:
        """FLOPs of a decode step of ``batch`` chains with so many live ``entries`` each."""
        shape = self.shape
        heads = shape.heads or _GROUP * shape.kv_heads
        attention = 4 * shape.layers * heads * shape.head_dim * entries
        return (2 * ((shape.parameters or 0) - shape.embedding) + attention) * batch

    def bytes(self, batch: float, entries: float) -> float:
        """Bytes that a decode step reads."""
        weights = (self.shape.weight_bytes(self.dtype) or 0) - self.shape.embedding * self._item
        return weights + self.shape.entry_bytes(self.dtype, self.kv_dtype) * entries * batch

    def step(self, batch: float, entries: float) -> float:
        """Seconds of a decode step."""
        return max(self._compute(batch, entries), self._memory(batch, entries))

    def bound(self, batch: float, entries: float) -> str:
        """What a decode step waits for: "memory" or "compute"."""
        return "compute" if self._compute(batch, entries) > self._memory(batch, entries) else "memory"

    def batch(self, chain: Costs) -> int:
        """The most chains whose peaks fit beside the weights; 0 if none does."""
        return together(self.gpu, self.shape.weight_bytes(self.dtype) or 0, chain.peak_bytes)

    def seconds(self, chain: Costs, batch: int) -> float:
        """Time that a chain takes where so many of its kind share the GPU; infinite if it does not fit.

        Where fewer fit at a time, they take turns, and waiting counts: else a cache that is too large for the GPU would
        look fast, as a step of few chains is short.
        """
        fitting = min(batch, self.batch(chain))
        if not fitting:
            return float("inf")
        return chain.tokens * self.step(fitting, mean_entries(chain)) * batch / fitting

    @property
    def _item(self) -> int:
        return (self.shape.weight_bytes(self.dtype) or 0) // max(self.shape.parameters or 1, 1)

    def _compute(self, batch: float, entries: float) -> float:
        return self.flops(batch, entries) / dict(self.gpu.flops)[self.dtype]

    def _memory(self, batch: float, entries: float) -> float:
        assert self.gpu.bandwidth is not None, "no roofline without a bandwidth"
        return self.bytes(batch, entries) / self.gpu.bandwidth


def mean_entries(chain: Costs) -> float:
    """Live entries that a chain attends to in a step, mean over its steps."""
    return chain.kv_reads / max(chain.tokens - 1, 1)


def together(gpu: Gpu, weights: float, chain: float) -> int:
    """The most chains whose caches of ``chain`` bytes each fit beside ``weights`` bytes; 0 if none does."""
    return max(int((gpu.memory * USABLE - weights) // max(chain, 1)), 0)
