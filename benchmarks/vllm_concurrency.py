"""Counts the chains that run at once in the same KV space: stock vLLM against DMS, built-in model, on the CPU.

python benchmarks/vllm_concurrency.py --problems 24 --length 384 --blocks 80
"""

import argparse
from importlib.resources import files

from vllm_occupancy import watch_scheduler

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.vllm.harness.engine import VllmEngine
from hyperscale.models.checkpoint import shape_of
from hyperscale.run import prepare
from hyperscale.run.config import load


def main() -> None:
    """Run every method in turn and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", type=int, default=24)
    parser.add_argument("--length", type=int, default=384)
    parser.add_argument("--blocks", type=int, default=80)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--reserve", type=float, default=1.0, help="reserve_output_fraction")
    arguments = parser.parse_args()
    run = prepare.prepare_run(
        load.make_config({"methods": ["vanilla"], "tasks": ["mini_gpqa"], "limit": arguments.problems}),
        lambda stage: None,
    )
    requests = [Request(item.request_id, 0, item.prompt_ids, arguments.length) for item in run.problems["mini_gpqa"]]
    prompts = [len(request.prompt_ids) for request in requests]
    print(f"{len(requests)} chains, at most {arguments.length} new tokens")
    print(f"prompts of {min(prompts)} to {max(prompts)} tokens")
    print(f"{arguments.blocks} blocks of 32 tokens, chunks of {arguments.chunk} tokens; float32, CPU")
    print("method      tokens  steps  most running  mean if some wait  preemptions  peak blocks  reads a token")
    for name, cr, folder in (("vanilla", 1, "base"), ("dms", 4, "dms4"), ("dms", 8, "dms8")):
        weights = str(files("hyperscale") / "mini" / "weights" / folder)
        space = (arguments.blocks + 1) * 32 * shape_of("mini", weights).entry_bytes("float32")
        engine = VllmEngine(
            weights,
            methods.create(name, cr=cr),
            batch_size=len(requests),
            kv_cache_memory_bytes=space,
            max_model_len=max(prompts) + arguments.length,
            max_num_batched_tokens=arguments.chunk,
            options={"reserve_output_fraction": arguments.reserve},
        )
        occupancy = watch_scheduler(engine._engine)
        chains = list(engine.generate(requests, Sampling(temperature=0.8)))
        engine.close()
        tokens = sum(len(chain.token_ids) for chain in chains)
        reads = sum(chain.trace.kv_reads[-1] for chain in chains) / tokens
        print(
            f"{name:7s}{cr:2d}x {tokens:7d} {occupancy.steps:6d} {max(occupancy.running):13d} "
            f"{occupancy.crowded:17.1f} "
            f"{occupancy.preemptions:12d} {max(occupancy.blocks):7d}/{occupancy.total} {reads:17.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
