"""Attention of a retrofit's layers on a GPU: the project's kernels against FlexAttention, at the shapes of two models.

Usage: python benchmarks/retrofit_attention.py
       python benchmarks/retrofit_attention.py --sweep --shapes qwen2.5-1.5b
       TRITON_INTERPRET=1 python benchmarks/retrofit_attention.py --toy

Milliseconds a layer, forward and backward, of bfloat16 queries, keys and values:

- "flex near+far": two FlexAttention calls, inside and outside the window, as training under gates is by default;
- "flex": one, without gates, as the teacher's is;
- "fused bias" and "fused": the project's kernels, with gates and without;
- "sdpa": torch's scaled_dot_product_attention, causal, where a row is one document: a bound, not an alternative.

TFLOP/s count the pairs of a query and a key it sees, 2 products forward and 5 backward. Then the largest differences of
outputs and gradients from the dense form in float32, beside the largest numbers; it takes some 30 GiB.
--sweep times each kernel under other launches (`LAUNCHES` of `hyperscale.retrofit.attention.fused`), one at a time.
"""

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from gpu_timing import milliseconds
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hyperscale.retrofit.attention import fused
from hyperscale.retrofit.attention.fused import Launch, Launches
from hyperscale.retrofit.attention.masks import PackingMasks, document_spans
from hyperscale.retrofit.attention.packed_attention import packed_attention


class Shape(NamedTuple):
    """Attention of one layer, and a batch's documents: none longer than ``longest``."""

    rows: int
    length: int
    heads: int
    kv_heads: int
    dim: int
    window: int
    longest: int


SHAPES = {
    "qwen2.5-1.5b": Shape(1, 8192, 12, 2, 128, 256, 8192),
    "smollm2-135m": Shape(16, 2048, 9, 3, 64, 64, 1024),
}
TOY = {"toy": Shape(1, 96, 4, 2, 16, 8, 60)}

#: Launches to try by head dimension.
FORWARD = {
    128: [(128, 64, 8, 2), (128, 128, 8, 2), (128, 32, 8, 3), (64, 64, 4, 2), (64, 32, 4, 3, 168)],
    64: [(128, 64, 8, 3), (64, 64, 4, 3, 168), (64, 128, 4, 2), (128, 64, 4, 3), (128, 128, 8, 2)],
}
QUERY = {
    128: [(128, 64, 8, 2), (128, 32, 8, 3), (64, 64, 4, 2), (64, 32, 4, 2), (64, 32, 4, 2, 168)],
    64: [(128, 64, 8, 3), (64, 64, 4, 3, 168), (128, 32, 4, 3), (64, 32, 4, 3, 128)],
}
KEY = {
    128: [(64, 128, 8, 3), (32, 128, 8, 2), (32, 128, 8, 3), (64, 64, 4, 2), (32, 64, 4, 2)],
    64: [(64, 128, 8, 3), (64, 64, 4, 2), (32, 128, 8, 3, 128), (32, 64, 4, 3, 168)],
}


def documents(shape: Shape, device: torch.device) -> Tensor:
    """(rows, length) numbers of documents; those of a row are as long as one may be, or of random lengths."""
    generator = torch.Generator().manual_seed(0)
    found = torch.zeros(shape.rows, shape.length, dtype=torch.long)
    if shape.longest < shape.length:
        for row in found:
            end = 0
            while end < shape.length:
                end += int(torch.randint(shape.longest // 4, shape.longest, (), generator=generator))
                row[end:] += 1
    return found.to(device)


def tensors(shape: Shape, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys and values as projections leave them, biases of keys that stay, go and are in between."""
    generator = torch.Generator().manual_seed(1)
    found = [
        torch.randn(shape.rows, shape.length, heads, shape.dim, generator=generator).to(device, dtype).transpose(1, 2)
        for heads in (shape.heads, shape.kv_heads, shape.kv_heads)
    ]
    logits = 6 * torch.randn(shape.rows, shape.length, shape.kv_heads, generator=generator)
    found.append(nn.functional.logsigmoid(-logits).to(device))
    return [tensor.requires_grad_() for tensor in found]


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, masks: PackingMasks) -> Tensor:
    """(batch, sequence, heads, dim), as a model's layer calls it."""
    module = nn.Module()
    module.key_bias = bias
    return packed_attention(module, q, k, v, None, masks=masks)[0]


def sdpa(q: Tensor, k: Tensor, v: Tensor, _: Tensor) -> Tensor:
    """The causal attention of torch."""
    return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)


class Variant(NamedTuple):
    """A way to compute it: a function of queries, keys, values and bias, and whether it reads the bias."""

    name: str
    function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    biased: bool


def variants(shape: Shape, document: Tensor) -> list[Variant]:
    """The ways to compare, compiled as layers are."""
    on_gpu = document.device.type == "cuda"
    torch._dynamo.reset()  # graphs of the shape before would count towards the most that are kept
    function = torch.compile(attend, dynamic=False) if on_gpu else attend
    own = PackingMasks.build(document, shape.window, fused=True)
    masks = [("fused", own)]
    if on_gpu:
        masks.insert(0, ("flex", PackingMasks.build(document, shape.window)))
    found = []
    for name, of in masks:
        label = "flex near+far" if name == "flex" else "fused bias"
        found.append(Variant(label, lambda q, k, v, bias, of=of: function(q, k, v, bias, of), True))
        found.append(Variant(name, lambda q, k, v, _, of=of: function(q, k, v, None, of), False))
    if shape.longest >= shape.length:
        found.append(Variant("sdpa", sdpa, False))
    return found


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of a call."""
    if device.type == "cuda":

        def several() -> None:
            for _ in range(5):  # the host is ahead of the device after the first
                work()

        return milliseconds(several, 5, graph=False)
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def pairs(document: Tensor) -> int:
    """Pairs of a query and a key that it sees, in a batch."""
    starts, _ = document_spans(document)
    return int((torch.arange(document.shape[1], device=document.device) - starts + 1).sum())


def measure(name: str, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
    """Print the times of a shape and the differences from the dense form."""
    document, inputs = documents(shape, device), tensors(shape, device, dtype)
    gradient = torch.randn(shape.rows, shape.length, shape.heads, shape.dim, device=device, dtype=dtype)
    flops = 4e-9 * pairs(document) * shape.heads * shape.dim
    print(f"{name}: {shape.rows} x {shape.length} tokens, {shape.heads}/{shape.kv_heads} heads of {shape.dim}")
    ways = variants(shape, document)
    for label, function, biased in ways:
        leaves = inputs if biased else inputs[:3]
        forward = timed(lambda f=function: f(*inputs), device)
        both = timed(lambda f=function, at=leaves: torch.autograd.grad(f(*inputs), at, gradient), device)
        backward = max(both - forward, 1e-9)
        print(
            f"  {label:<14} forward {forward:7.3f} ms {flops / forward:5.0f} TFLOP/s   "
            f"backward {backward:7.3f} ms {2.5 * flops / backward:5.0f} TFLOP/s",
            flush=True,
        )
    exact = [tensor.detach().float().requires_grad_() for tensor in inputs]
    print(f"{name}: largest differences from the dense form, of out, dq, dk, dv, dbias")
    dense: dict[bool, list[Tensor]] = {}
    for biased in (True, False):
        with sdpa_kernel(SDPBackend.MATH):
            out = attend(*exact[:3], exact[3] if biased else None, PackingMasks(document, shape.window))
            dense[biased] = [out, *torch.autograd.grad(out, exact if biased else exact[:3], gradient.float())]
        largest = "  ".join(f"{float(tensor.detach().abs().max()):9.2e}" for tensor in dense[biased])
        print(f"  {'largest, bias' if biased else 'largest':<14} {largest}")
    for label, function, biased in ways:
        out = function(*inputs)
        found = [out, *torch.autograd.grad(out, inputs if biased else inputs[:3], gradient)]
        differences = (
            float((a.detach().float() - b.detach()).abs().max()) for a, b in zip(found, dense[biased], strict=True)
        )
        print(f"  {label:<14} " + "  ".join(f"{difference:9.2e}" for difference in differences), flush=True)


def sweep(name: str, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
    """Print the times of the kernels with a bias under other launches; a backward time is of both its kernels."""
    document, (q, k, v, bias) = documents(shape, device), (t.detach() for t in tensors(shape, device, dtype))
    bias = bias.transpose(1, 2).contiguous()
    rest = (*document_spans(document), shape.window, shape.dim**-0.5)
    out, sums = fused._attend(q, k, v, bias, *rest)
    key, default = (dtype.itemsize == 2, max(64, shape.dim)), fused.launches_for(q)

    def forward() -> None:
        fused._attend(q, k, v, bias, *rest)

    def backward() -> None:
        fused._attend_backward(out, q, k, v, bias, *rest[:2], out, sums, *rest[2:])

    tried = max(64, shape.dim)
    for part, work, candidates in (
        ("forward", forward, FORWARD[tried]),
        ("query", backward, QUERY[tried]),
        ("key", backward, KEY[tried]),
    ):
        times: dict[Launch, float] = {}
        for candidate in (getattr(default, part), *(Launch(*each) for each in candidates)):
            if candidate in times:
                continue
            fused.LAUNCHES[key] = default._replace(**{part: candidate})
            try:
                times[candidate] = timed(work, device)
                print(f"  {name} {part:<8} {tuple(candidate)!s:<22} {times[candidate]:7.3f} ms", flush=True)
            except Exception as error:  # too much shared memory, most likely: the next one may fit
                print(f"  {name} {part:<8} {tuple(candidate)!s:<22} {type(error).__name__}", flush=True)
        default = default._replace(**{part: min(times, key=times.__getitem__)})
    fused.LAUNCHES[key] = Launches(*default)
    print(f"{name}: best {key}: {fused.LAUNCHES[key]}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--sweep", action="store_true", help="find launches first, and go on with the best")
    parser.add_argument("--toy", action="store_true", help="a tiny shape on the CPU, with triton's interpreter")
    arguments = parser.parse_args()
    device, dtype = torch.device("cuda"), torch.bfloat16
    shapes = {name: SHAPES[name] for name in arguments.shapes.split(",")} if not arguments.toy else TOY
    if arguments.toy:
        device, dtype = torch.device("cpu"), torch.float32
        print("times of an interpreter say nothing")
    for name, shape in shapes.items():
        if arguments.sweep:
            sweep(name, shape, device, dtype)
        measure(name, shape, device, dtype)


if __name__ == "__main__":
    main()
