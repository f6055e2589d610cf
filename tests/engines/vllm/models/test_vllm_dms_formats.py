"""Checkpoints of FastDMS's format in vLLM: recognised by their files, and the same chains as in the torch engine."""

import dms_folders
import pytest
from dms_folders import FASTDMS_KEYS, FASTDMS_METADATA, NVIDIA_KEYS, OFFSET, SCALE, WINDOW
from dms_formats_reference import FASTDMS, NVIDIA, logits
from vllm_engines import needs_vllm
from vllm_plain import prompts, start, stop

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine

pytestmark = [pytest.mark.e2e, needs_vllm]

SETTINGS = {"window": WINDOW, "scale": SCALE, "offset": OFFSET}
CASES = {
    "metadata alone": ({"metadata": FASTDMS_METADATA}, {}),
    "keys": ({"keys": FASTDMS_KEYS}, {}),
    "option": ({"keys": NVIDIA_KEYS}, {"format": "fastdms"}),
    "option, the other way": ({"metadata": FASTDMS_METADATA}, {"format": "nvidia"}),
    "switched off": ({"keys": FASTDMS_KEYS | {"dms_disable_eviction": True}}, {}),
    "one verdict for a layer": ({"keys": NVIDIA_KEYS | {"dms_alpha_per": "layer"}}, {}),
    "window 0": ({"keys": FASTDMS_KEYS | {"dms_window_size": 0}}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_chains_as_the_torch_engine(case, tmp_path):
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    files, params = CASES[case]
    dms_folders.write(tmp_path, "llama", head_dim=32, **files)
    requests = [Request(f"p{i}", 0, tuple(ids), 30, (1, 11, 30)) for i, ids in enumerate(prompts(200))]
    method = methods.create("dms", cr=8, **params)
    torch_engine = TorchEngine(*load_model(tmp_path), method, batch_size=4)
    wanted = {chain.problem: chain for chain in torch_engine.generate(requests, Sampling(temperature=0))}
    engine = VllmEngine(str(tmp_path), method, batch_size=4, max_num_batched_tokens=40, max_tokens=256)
    try:
        found = {chain.problem: chain for chain in engine.generate(requests, Sampling(temperature=0))}
    finally:
        engine.close()
    assert found.keys() == wanted.keys()
    equal = [problem for problem, chain in wanted.items() if found[problem].token_ids == chain.token_ids]
    assert len(equal) >= 3, "near ties apart, the chains are the same"
    for problem in equal:
        for field in ("lengths", "kv_reads", "peak_kv"):
            assert getattr(found[problem].trace, field) == getattr(wanted[problem].trace, field), field


def test_by_hub_id_and_revision(tmp_path, monkeypatch):
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    folder = tmp_path / "folder"
    dms_folders.write(folder, "llama", head_dim=32, metadata=FASTDMS_METADATA)
    dms_folders.publish(tmp_path / "hub", "someone/dms", folder, revision="v1", commit="1" * 40)
    dms_folders.use_hub(monkeypatch, tmp_path / "hub")
    requests = [Request("p", 0, tuple(range(40)), 30, (30,))]
    method = methods.create("dms", cr=8)
    reads = []
    for path in (str(folder), "someone/dms@v1"):
        engine = VllmEngine(path, method, batch_size=2, max_tokens=256)
        try:
            (chain,) = engine.generate(requests, Sampling(temperature=0))
        finally:
            engine.close()
        reads.append((chain.token_ids, chain.trace.kv_reads))
    assert reads[0] == reads[1]
    assert reads[0][1][-1] < sum(range(40, 69))  # something is evicted


@pytest.mark.parametrize(("files", "convention"), [({"metadata": FASTDMS_METADATA}, FASTDMS), ({}, NVIDIA)])
def test_plain_vllm_reads_the_files_too(files, convention, tmp_path):
    from vllm import SamplingParams

    plain = dms_folders.write(tmp_path, "llama", keys=None if files else NVIDIA_KEYS, head_dim=32, **files)
    llm = start(tmp_path)
    try:
        settings = SamplingParams(temperature=0, max_tokens=25, logprobs=0, ignore_eos=True)
        outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts(200)], settings, use_tqdm=False)
    finally:
        stop(llm)
    for output in outputs:
        prompt, new = list(output.prompt_token_ids), list(output.outputs[0].token_ids)
        want = logits(plain, prompt + new, **SETTINGS, **convention).log_softmax(-1)
        scores = [row[token].logprob for row, token in zip(output.outputs[0].logprobs, new, strict=True)]
        expected = want[range(len(prompt) - 1, len(prompt) + len(new) - 1), new]
        assert scores == pytest.approx(expected.tolist(), abs=2e-3)
