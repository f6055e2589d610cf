"""``hyperscale run --method kvpress:NAME`` as a user calls it, and chains that are steered under a press."""

import json
import sys
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec

import checkpoints
import commandline
import pytest
import tiny
from safetensors.torch import load_file, save_file
from steered_tokenizer import SIZE, WORD, Marks
from stored_chains import stored_chains

from hyperscale import methods, results
from hyperscale.engines.base import Request, Sampling, Steering
from hyperscale.kv.trace import dense_peak, dense_reads
from hyperscale.methods.kvpress import press_tree

pytestmark = pytest.mark.e2e

FREES, MASKS = "kvpress:DecodingPress:KeyDiffPress", "kvpress:DecodingPress:AdaKVPress:KnormPress"
NOTE = f"note: {MASKS} masks entries and frees none: peak_kv counts them all, kv_reads those that are attended to"

installed = pytest.mark.skipif(find_spec("kvpress") is None, reason="kvpress is not installed (docs/kvpress.md)")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = checkpoints.write(tmp_path_factory.mktemp("weights"), crs=(4,))
    file = folder / "base" / "model.safetensors"
    tensors = load_file(file)
    # A random model draws padding, whose embedding is zero: to a query of zeros kvpress can mask nothing.
    tensors["model.embed_tokens.weight"].add_(0.01)
    save_file(tensors, file, {"format": "pt"})
    return folder


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


def options(weights, *names):
    wanted = {"--model": weights, "--method": ",".join(names), "--cr": 4, "--task": "mini_aime", "--budget": "0.2x"}
    return ["run", *(part for pair in (wanted | {"--grid": "mini", "--limit": 2}).items() for part in pair)]


@installed
def test_a_run_prints_what_frees_nothing_and_resumes(weights, call, tmp_path):
    command = options(weights, "vanilla", FREES, MASKS)
    code, out, err = call(*command)
    assert (code, err) == (0, "")
    assert out.count(NOTE) == 1
    (folder,) = (tmp_path / "results").iterdir()
    assert ":" not in folder.name
    assert "kvpress_DecodingPress_KeyDiffPress" in folder.name
    info = json.loads((folder / results.RUN_FILE).read_text())
    assert info["versions"]["kvpress"] == version("kvpress")
    assert info["params"][f"{FREES} 4×"] == {"cr": 4, "compression_interval": 16}
    found = stored_chains(folder)
    saved = dict.fromkeys(("vanilla", FREES, MASKS), 0.0)
    for s in found.values():
        reads, peak = dense_reads(s.prompt_tokens, s.tokens), dense_peak(s.prompt_tokens, s.tokens)
        assert s.engine == ("torch" if s.method == "vanilla" else "kvpress")
        assert s.length_invariant == (s.method == "vanilla")
        saved[s.method] += reads - s.whole.kv_reads
        assert s.whole.peak_kv <= peak
        if s.method != FREES:
            assert s.whole.peak_kv == peak  # what is masked is held
    assert saved["vanilla"] == 0
    assert min(saved[FREES], saved[MASKS]) > 0
    lines = (folder / results.SAMPLES).read_bytes().splitlines(keepends=True)
    (folder / results.SAMPLES).write_bytes(b"".join(lines[:-4]) + lines[-4][:30])  # as a kill would leave it
    code, out, err = call(*command)
    assert (code, err) == (0, "")
    assert f"{len(lines) - 4} finished chains: resuming" in " ".join(out.split())
    assert stored_chains(folder) == found
    code, out, err = call("plot", folder, "--margins", f"{FREES}:{MASKS},{MASKS}:vanilla")
    assert (code, err) == (0, "")
    code, out, err = call("report", folder)
    assert (code, err) == (0, "")


@installed
def test_machines_and_plans_are_told_too(weights, call):
    code, out, _ = call(*options(weights, MASKS), "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert [e["text"] for e in events if e["event"] == "note"] == [NOTE.removeprefix("note: ")]
    code, out, _ = call(*options(weights, MASKS), "--dry-run")
    assert code == 0
    assert NOTE.removeprefix("note: ") in " ".join(out.split())


@installed
@pytest.mark.slow
def test_parameters_come_from_a_file(weights, call, tmp_path):
    name = "kvpress:DMSPress:RandomPress"
    settings = tmp_path / "run.yaml"
    settings.write_text(f"params:\n  {name}: {{threshold: {{4: 0.75}}, sliding_window_size: 8}}\n")
    code, out, err = call(*options(weights, name), "--config", settings, "--out", "run")
    assert (code, err) == (0, "")
    assert f"{name} evicts by a threshold: its nominal compression ratio is only a label" in " ".join(out.split())
    found = stored_chains(tmp_path / "run").values()
    assert all(s.params == {"cr": 4, "threshold": 0.75, "sliding_window_size": 8} for s in found)
    assert all(s.length_invariant for s in found)


@installed
def test_the_built_in_model(call, tmp_path):
    command = ["run", "--method", FREES, "--cr", 8, "--task", "mini_aime", "--budget", "0.05x", "--limit", 1]
    code, _, err = call(*command, "--predict", "closed", "--out", "run")
    assert (code, err) == (0, "")
    for s in stored_chains(tmp_path / "run").values():
        most = -(-(s.prompt_tokens + s.L) // 8)
        assert s.whole.peak_kv <= max(most, s.prompt_tokens + 16)


@installed
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kvpress:NoSuchPress", "kvpress has no press 'NoSuchPress'; those that work while decoding: CAMPress"),
        ("kvpress:SnapKVPress", "write kvpress:DecodingPress:SnapKVPress"),
        ("kvpress:KVzipPress", "KVzipPress compresses only the prompt"),
        ("kvpress:DecodingPress:SnapKVPress", "should be greater than the window size"),
        ("kvpress:", "kvpress has no press ''"),
        ("kvpress", "unknown method 'kvpress'"),
    ],
)
def test_errors_are_one_line(weights, call, name, text):
    code, _, err = call(*options(weights, name))
    assert (code, err.count("\n")) == (2, 1), err
    assert err.startswith("error: ")
    assert text in err


@pytest.mark.parametrize("broken", [False, True])
def test_without_kvpress_it_says_how_to_install_it(weights, call, monkeypatch, tmp_path, broken):
    for name in [name for name in sys.modules if name.partition(".")[0] == "kvpress"]:
        monkeypatch.delitem(sys.modules, name)
    if broken:
        (tmp_path / "kvpress.py").write_text("import not_a_package_of_anyone\n")
        monkeypatch.syspath_prepend(tmp_path)
    else:
        monkeypatch.setitem(sys.modules, "kvpress", None)
    press_tree.package.cache_clear()
    try:
        code, _, err = call(*options(weights, FREES))
    finally:
        press_tree.package.cache_clear()
    why = "cannot be imported (No module named 'not_a_package_of_anyone')" if broken else "is not installed"
    assert code == 2
    assert err == (
        f"error: methods named kvpress:NAME need the package kvpress, which {why}: "
        "pip install 'hyperscale-kv[kvpress]', see docs/kvpress.md\n"
    )


@installed
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("CompressionRatioDecodingPress:RandomPress", {"compression_interval": 3}),
        ("CompressionRatioDecodingPress:SnapKVPress", {"compression_interval": 7, "window_size": 4}),
        ("DMSPress:RandomPress", {"threshold": 0.5, "sliding_window_size": 4}),
    ],
)
def test_branches_are_the_ends_of_shorter_runs_and_leave_the_chain_alone(name, params):
    from hyperscale.engines.kvpress.engine import KVPressEngine

    model = tiny.model("llama", kv_heads=2, vocab=SIZE)
    engine = KVPressEngine(model, Marks(), methods.create(f"kvpress:{name}", cr=3, **params))
    prompt, lengths = (3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8), (8, 20, 45)
    sampling = Sampling(seed=3, steering=Steering(extend=1, word=WORD, answer=5))

    def run(length, checkpoints, steering):
        requests = [Request("p", chain, prompt, length, checkpoints) for chain in range(4)]
        return list(engine.generate(requests, replace(sampling, steering=steering)))

    branched, compared = run(45, lengths, sampling.steering), 0
    for chain, plain in zip(branched, run(45, lengths, replace(sampling.steering, answer=0)), strict=True):
        assert replace(chain, seconds=0, branches=()) == replace(plain, seconds=0)
    for length in lengths:
        for chain, short in zip(branched, run(length, (length,), sampling.steering), strict=True):
            ends = [replace(branch, seconds=0) for branch in chain.branches if branch.at == length]
            assert ends == [replace(branch, seconds=0) for branch in short.branches]
            compared += len(ends)
    assert compared > 4
