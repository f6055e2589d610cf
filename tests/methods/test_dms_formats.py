"""Checkpoints of NVIDIA's and FastDMS's formats: each decides as its own code does, in prefill and in decode."""

import dms_folders
import pytest
from dms_folders import FASTDMS_KEYS, FASTDMS_METADATA, NVIDIA_KEYS, OFFSET, SCALE, WINDOW
from dms_formats_reference import FASTDMS, NVIDIA, logits
from engine_probe import prompts, same_logits, watch

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import MethodError
from hyperscale.methods.core.dms_config import read_gate

LENGTHS = [(30, 24), (1, 30), (7, 9), (60, 20), (13, 1)]
SETTINGS = {"window": WINDOW, "scale": SCALE, "offset": OFFSET}

CHECKPOINTS = {
    "nvidia": ({"keys": NVIDIA_KEYS}, {}, NVIDIA),
    "nvidia, said": ({"keys": NVIDIA_KEYS | {"dms_separate_alpha": False}}, {}, NVIDIA),
    "metadata and keys": ({"keys": FASTDMS_KEYS, "metadata": FASTDMS_METADATA}, {}, FASTDMS),
    "metadata alone": ({"metadata": FASTDMS_METADATA}, {}, FASTDMS),
    "metadata in a config": ({"metadata": {"config": FASTDMS_METADATA}}, {}, FASTDMS),
    "metadata, NVIDIA's keys": ({"keys": NVIDIA_KEYS, "metadata": FASTDMS_METADATA}, {}, FASTDMS),
    "keys of FastDMS": ({"keys": FASTDMS_KEYS}, {}, FASTDMS),
    "training log": ({"log": {"config": FASTDMS_METADATA, "log": []}}, {}, FASTDMS),
    "option": ({"keys": NVIDIA_KEYS}, {"format": "fastdms"}, FASTDMS),
    "option, the other way": ({"keys": FASTDMS_KEYS}, {"format": "nvidia"}, NVIDIA),
    "key": ({"keys": NVIDIA_KEYS | {"dms_decision_offset": 0}}, {}, {"later": 0, "after_rope": True}),
    "both keys": (
        {"keys": NVIDIA_KEYS | {"dms_decision_offset": 0, "dms_neuron_zeroing": "before_rope"}},
        {},
        FASTDMS,
    ),
}


def run(folder, params, sampling=None, batch_size=3):
    model, tokenizer = load_model(folder)
    method = methods.create("dms", cr=8, **params)
    engine = TorchEngine(model, tokenizer, method, batch_size=batch_size)
    items = prompts(LENGTHS, 200, 3)
    requests = [Request(problem, 0, ids, new) for problem, ids, new in items]
    chains, steps, _ = watch(engine, requests, sampling or Sampling(temperature=1.0, seed=5))
    return items, chains, steps


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("case", CHECKPOINTS)
def test_decides_as_the_format_says(case, family, tmp_path):
    files, params, convention = CHECKPOINTS[case]
    plain = dms_folders.write(tmp_path, family, **files)
    items, chains, steps = run(tmp_path, params)
    other = {"later": 1 - convention["later"], "after_rope": convention["after_rope"]}
    differences = []
    for problem, ids, _ in items:
        whole = [*ids, *chains[problem].token_ids]
        want = logits(plain, whole, **SETTINGS, **convention)
        neighbour = logits(plain, whole, **SETTINGS, **other)
        for step, got in enumerate(steps.get(problem, [])):
            same_logits(got, want[len(ids) + step])
            differences.append(float((got - neighbour[len(ids) + step]).abs().max()))
    assert max(differences) > 0.1, "the formats do not differ on these chains"


def test_a_log_above_the_weights(tmp_path):
    """FastDMS's trainer leaves its log beside the folder ``final``."""
    final = tmp_path / "final"
    plain = dms_folders.write(final)
    (tmp_path / "training_log.json").write_text(
        '{"config": {"window_size": 5, "alpha_scale": 100.0, "alpha_offset": 5.0, "target_cr": 8}}', encoding="utf-8"
    )
    items, chains, steps = run(final, {})
    problem, ids, _ = items[0]
    want = logits(plain, [*ids, *chains[problem].token_ids], **SETTINGS, **FASTDMS)
    same_logits(steps[problem][-1], want[len(ids) + len(steps[problem]) - 1])


@pytest.mark.parametrize("format", ["nvidia", "fastdms"])
def test_the_batch_does_not_matter(format, tmp_path):
    dms_folders.write(tmp_path, keys=NVIDIA_KEYS)
    one, many = (run(tmp_path, {"format": format}, batch_size=size)[1] for size in (1, 5))
    for problem, chain in one.items():
        assert (chain.token_ids, chain.trace.kv_reads) == (many[problem].token_ids, many[problem].trace.kv_reads)


@pytest.mark.parametrize("keys", [NVIDIA_KEYS, FASTDMS_KEYS])
def test_eviction_switched_off(keys, tmp_path):
    """The checkpoint asks for a full cache; the neuron is hidden all the same."""
    plain = dms_folders.write(tmp_path, keys=keys | {"dms_disable_eviction": True})
    items, chains, steps = run(tmp_path, {})
    convention = NVIDIA if keys is NVIDIA_KEYS else FASTDMS
    for problem, ids, _ in items:
        whole = [*ids, *chains[problem].token_ids]
        want = logits(plain, whole, window=10_000, scale=SCALE, offset=OFFSET, **convention)
        for step, got in enumerate(steps.get(problem, [])):
            same_logits(got, want[len(ids) + step])
        tokens = len(chains[problem].token_ids)
        assert chains[problem].trace.peak_kv[-1] == len(ids) + tokens - 1


@pytest.mark.parametrize("keys", [{"dms_alpha_scale": SCALE}, {"dms_alpha_offset": OFFSET}])
def test_a_window_that_is_not_stated_is_that_of_the_format_in_force(keys, tmp_path):
    dms_folders.write(tmp_path, keys=keys)
    config = load_model(tmp_path)[0].config
    recognised = 256 if "dms_alpha_offset" in keys else 512
    for form, window in (("auto", recognised), ("nvidia", 512), ("fastdms", 256)):
        gate = methods.create("dms", cr=8, format=form).gate(config)
        assert gate.window == window
        # As a configuration, which vLLM's process reads again, too.
        read = read_gate({**config.to_dict(), **gate.to_hf()})
        assert (read, read.window_implied) == (gate, True)
    dms_folders.edit(tmp_path, dms_window_size=WINDOW)
    config = load_model(tmp_path)[0].config
    for form in ("auto", "nvidia", "fastdms"):
        gate = methods.create("dms", cr=8, format=form).gate(config)
        assert gate.window == WINDOW
        assert "dms_window_implied" not in gate.to_hf()


def test_an_unknown_format_is_refused():
    with pytest.raises(MethodError, match=r"auto, nvidia, fastdms, not 'vllm'"):
        methods.create("dms", cr=8, format="vllm")
    assert methods.create("dms", cr=8).params() == {"cr": 8.0}
    assert methods.create("dms", cr=8, format="fastdms").params() == {"cr": 8.0, "format": "fastdms"}
