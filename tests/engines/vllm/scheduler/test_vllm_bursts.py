"""A method that lets many entries go at once, in real vLLM: superblocks return to the pool while the request runs."""

import random
from itertools import pairwise

import dense_reference
import pytest
import torch
import vllm_checkpoints
from ragged_tables import anything
from vllm_engines import needs_vllm
from vllm_occupancy import watch_scheduler
from vllm_plain import prompts, start, stop

pytestmark = [pytest.mark.e2e, needs_vllm]
NEW = 200


def expiry(layer, head, position):
    if random.Random(f"{layer} {head} {position}").random() < 0.15:
        return 2**31 - 1
    return -(-(position + 20) // 64) * 64  # at multiples of 64 everything goes that is not kept for good


def reference(layer, hidden):
    heads = range(vllm_checkpoints.KV_HEADS)
    return torch.tensor([[expiry(layer, head, k) for k in range(hidden.shape[1])] for head in heads])


def test_superblocks_return_in_mid_decode(tmp_path, monkeypatch):
    from vllm import SamplingParams

    from hyperscale.engines.vllm.families import architecture
    from hyperscale.engines.vllm.worker.methods import registry

    def create(tables, options, *of_the_model):
        return anything(tables, options, lambda key, layer, head, position: expiry(layer, head, position))

    monkeypatch.setattr(registry, "create", create)
    model = vllm_checkpoints.write(tmp_path, "qwen3", source="")
    mine = {"architectures": [architecture("qwen3")]}
    options = {"hyperscale": {"method": "none"}}
    llm = start(tmp_path, hf_overrides=mine, additional_config=options, max_num_batched_tokens=40)
    try:
        seen = watch_scheduler(llm.llm_engine)
        settings = SamplingParams(temperature=0, max_tokens=NEW, ignore_eos=True)
        (output,) = llm.generate([{"prompt_token_ids": prompts(200)[-1]}], settings, use_tqdm=False)
    finally:
        stop(llm)
    assert seen.preemptions == 0
    # The request alone runs, and what it holds falls again and again.
    assert sum(b < a for a, b in pairwise(seen.blocks[:-1])) >= 2
    assert seen.blocks[-1] == 0
    prompt = len(output.prompt_token_ids)
    logits, _, expiries = dense_reference.forward(
        model, [*output.prompt_token_ids, *output.outputs[0].token_ids], reference
    )
    best = logits[prompt - 1 : -1].topk(2)
    clear = best.values[:, 0] - best.values[:, 1] > 1e-3
    drawn = torch.tensor(output.outputs[0].token_ids)
    assert bool((best.indices[:, 0] == drawn)[clear].all())
    assert int(clear.sum()) > NEW / 2
    rows = model.config.num_hidden_layers * model.config.num_key_value_heads
    reads, peak = dense_reference.reads_and_peak(expiries, prompt, NEW)
    costs = output.kv_transfer_params
    assert (costs["kv_reads"], costs["peak_kv"]) == (reads / rows, peak / rows)
