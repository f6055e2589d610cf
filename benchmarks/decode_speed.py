"""Decode speed of the engine, as ratios within one run.

1. Generated tokens per second of the engine (vanilla) against transformers' own ``generate`` in its best batch size, on
   the same model and the same chains, whose lengths vary: ``generate`` runs a batch until its longest chain is done.
2. Time per decode step at a context of 2,000 tokens: DMS at 8x against vanilla, measured in turns.

Usage: python benchmarks/decode_speed.py [--model FOLDER --dms-model FOLDER] [--threads 2] [--chains 128] …
Without folders the built-in model is used if its weights are there, else a random model of its shape.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch import forward_pass
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.methods.core.base import Method
from hyperscale.methods.core.dms_gate import GateConfig, alpha_logits, attach_gates

WEIGHTS = Path(__file__).parent.parent / "hyperscale" / "mini" / "weights"
SAMPLING = Sampling(temperature=0.8)


class NoText:
    """A tokenizer for measurements: all ids are used, none ends a sequence, texts are empty."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def decode(self, ids: Any, **options: Any) -> str:
        """Nothing."""
        return ""


def endless(model: Any) -> Any:
    """Let no token end a chain, so that lengths are set by the request."""
    for config in (model.config, model.generation_config):
        config.eos_token_id = model.config.vocab_size
    return model


def random_model(device: str) -> Any:
    """A random model of the built-in one's shape, with random gates."""
    torch.manual_seed(0)
    config = Qwen3Config(
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        intermediate_size=768,
        vocab_size=192,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        initializer_range=0.1,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    attentions: list[Any] = attach_gates(model)
    for attention in attentions:
        torch.nn.init.normal_(attention.dms_proj_alpha.weight, std=0.01)
    for name, value in GateConfig(window=16).to_hf().items():
        setattr(model.config, name, value)
    return endless(model.to(device).eval().requires_grad_(False))


def calibrate(model: Any, prompt: tuple[int, ...], cr: float) -> None:
    """Set the gates' common offset so that about one entry in ``cr`` is kept."""
    config = GateConfig.from_hf(model.config)
    found: list[torch.Tensor] = []

    def probe(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        found.append(alpha_logits(layer.self_attn, hidden, config).flatten() + config.initial_offset)

    hooks = [layer.register_forward_pre_hook(probe, with_kwargs=True) for layer in model.model.layers]
    with torch.inference_mode():
        model(torch.tensor([prompt], device=model.device))
    for hook in hooks:
        hook.remove()
    model.config.dms_initial_alpha_offset = float(torch.cat(found).quantile(1 / cr))


def lengths(count: int, longest: int) -> list[int]:
    """Chain lengths spread evenly from a tenth of the longest to the longest, in a fixed random order."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return [int(longest * (0.1 + 0.9 * i / max(count - 1, 1))) for i in order.tolist()]


def engine_rate(model: Any, prompt: tuple[int, ...], wanted: list[int], batch_size: int) -> float:
    """Generated tokens per second of the engine with a full cache."""
    engine = TorchEngine(
        model,
        NoText(model.config.vocab_size),
        methods.create("vanilla", cr=1),
        batch_size=batch_size,
        device=model.device,
    )
    requests = [Request("speed", chain, prompt, tokens) for chain, tokens in enumerate(wanted)]
    started = time.perf_counter()
    generated = sum(len(chain.token_ids) for chain in engine.generate(requests, SAMPLING))
    assert generated == sum(wanted)
    return generated / (time.perf_counter() - started)


def generate_rate(model: Any, prompt: tuple[int, ...], wanted: list[int], batch_size: int) -> float:
    """The same for transformers' ``generate``, in static batches that run until their longest chain is done."""
    started = time.perf_counter()
    for start in range(0, len(wanted), batch_size):
        batch = wanted[start : start + batch_size]
        ids = torch.tensor([prompt], device=model.device).expand(len(batch), -1)
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max(batch),
            do_sample=True,
            temperature=SAMPLING.temperature,
            top_k=0,
            pad_token_id=0,
        )
        assert out.shape[1] == len(prompt) + max(batch)
    return sum(wanted) / (time.perf_counter() - started)


class Stepper:
    """A batch of chains at a given context, to be stepped and timed."""

    def __init__(self, model: Any, method: Method, prompt: tuple[int, ...], batch_size: int) -> None:
        engine = TorchEngine(model, NoText(model.config.vocab_size), method, batch_size=batch_size, device=model.device)
        self.model, self.batch = model, engine.start_batch(SAMPLING)
        self.waiting = iter([Request("step", chain, prompt, 10_000) for chain in range(batch_size)])
        self.step()

    def step(self) -> float:
        """Milliseconds of one step; the engine itself waits for the device once per step."""
        started = time.perf_counter()
        with torch.inference_mode(), forward_pass.use_own_attention(self.model):
            self.batch.advance(self.waiting)
        return 1e3 * (time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="checkpoint without gates, for part 1 and vanilla")
    parser.add_argument("--dms-model", type=Path, help="checkpoint retrofitted with DMS at 8x, for part 2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--chains", type=int, default=128, help="chains of part 1")
    parser.add_argument("--longest", type=int, default=2000, help="longest chain of part 1")
    parser.add_argument("--engine-batch", type=int, default=128)
    parser.add_argument("--generate-batches", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--context", type=int, default=2000, help="context of part 2")
    parser.add_argument("--steps", type=int, default=30, help="timed steps of part 2")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    if args.model is None and (WEIGHTS / "base").is_dir():
        args.model, args.dms_model = WEIGHTS / "base", WEIGHTS / "dms8"
    model = endless(load_model(args.model, device=args.device)[0]) if args.model else random_model(args.device)
    sparse = endless(load_model(args.dms_model, device=args.device)[0]) if args.dms_model else model
    name = args.model or "random weights, built-in shape"
    print(f"model: {name}; {args.device}, {args.threads} threads; torch {torch.__version__}")

    prompt = tuple(range(1, 101))
    wanted = lengths(args.chains, args.longest)
    ours = engine_rate(model, prompt, wanted, args.engine_batch)
    print(f"engine, vanilla, batch {args.engine_batch}: {ours:.0f} tokens/s", flush=True)
    theirs = {}
    for size in args.generate_batches:
        theirs[size] = generate_rate(model, prompt, wanted, size)
        print(f"transformers generate, batch {size}: {theirs[size]:.0f} tokens/s", flush=True)
    best = max(theirs, key=lambda size: theirs[size])
    print(f"engine / generate in its best batch ({best}): {ours / theirs[best]:.2f}x")

    # The context is text of the model's own, so that trained gates see what they were trained on.
    engine = TorchEngine(model, NoText(model.config.vocab_size), methods.create("vanilla", cr=1), device=args.device)
    (chain,) = engine.generate([Request("context", 0, prompt[:8], args.context)], SAMPLING)
    context = chain.token_ids[: args.context]
    if args.dms_model is None:
        calibrate(sparse, context, 8)
    full = Stepper(model, methods.create("vanilla", cr=1), context, args.engine_batch)
    evicting = Stepper(sparse, methods.create("dms", cr=8), context, args.engine_batch)
    times = [(full.step(), evicting.step()) for _ in range(args.steps)]
    dense, dms = (statistics.median(column) for column in zip(*times, strict=True))
    held = full.batch.cache.live_entries / evicting.batch.cache.live_entries
    print(f"context {args.context}, batch {args.engine_batch}: vanilla {dense:.1f} ms a step, dms {dms:.1f} ms a step")
    print(f"entries vanilla / dms: {held:.1f}x; speed dms / vanilla: {dense / dms:.2f}x")


if __name__ == "__main__":
    main()
