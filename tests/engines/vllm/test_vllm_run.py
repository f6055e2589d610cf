"""`hyperscale run --engine vllm`: the whole line, what is refused, and what a crash leaves."""

import itertools
import json

import pytest
from commandline import caller
from vllm_engines import needs_vllm

from hyperscale import results
from hyperscale.engines.vllm import versions
from hyperscale.errors import ConfigError, EngineError, MethodError
from hyperscale.run.config import load, resolve

pytestmark = pytest.mark.e2e

RUN = (
    "run",
    "--model",
    "mini",
    "--task",
    "mini_aime",
    "--limit",
    "2",
    "--cr",
    "8",
    "--length",
    "64",
    "--budget",
    "all",
)


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    return caller(monkeypatch, capsys, tmp_path)


def samples(folder):
    (run,) = results.read(folder)
    return {s.key: s for s in run.samples}


@needs_vllm
def test_a_run_gives_what_the_torch_engine_gives(call, tmp_path):
    for engine in ("vllm", "torch"):
        code, out, err = call(*RUN, "--method", "vanilla,dms", "--engine", engine, "--out", tmp_path / engine)
        assert code == 0, err
        # Each change of arms starts vLLM anew, so only the arm that runs first is shown before.
        assert (out + err).count("a first chain with") == {"vllm": 1, "torch": 2}[engine]
    ours, theirs = samples(tmp_path / "vllm"), samples(tmp_path / "torch")
    assert set(ours) == set(theirs)
    for key, sample in ours.items():
        assert sample.engine == "vllm"
        assert (sample.text, sample.finish) == (theirs[key].text, theirs[key].finish)
        for ours_cut, their_cut in zip(sample.cuts, theirs[key].cuts, strict=True):
            for field in ("L", "tokens", "kv_reads", "peak_kv", "chars", "answer", "correct"):
                assert getattr(ours_cut, field) == getattr(their_cut, field), field
    info = json.loads((tmp_path / "vllm" / "run.json").read_text())
    assert info["config"]["engine"] == "vllm"
    assert info["versions"]["vllm"] == versions.installed()
    assert json.loads((tmp_path / "torch" / "run.json").read_text())["config"]["engine"] == "torch"
    # The folder belongs to one engine, which the same command without a name finds again.
    code, _, err = call(*RUN, "--method", "vanilla,dms", "--engine", "torch", "--out", tmp_path / "vllm")
    assert code == 2
    assert "engine" in err
    code, out, err = call(*RUN, "--method", "vanilla,dms", "--out", tmp_path / "vllm")
    assert code == 0, err
    assert "Engine: vllm: this folder's" in out


@needs_vllm
@pytest.mark.parametrize("error", [RuntimeError("a kernel failed"), MemoryError("out of memory")])
def test_a_crash_is_one_line_and_the_run_resumes(call, tmp_path, monkeypatch, error):
    from hyperscale.engines.vllm.worker.cpu import CpuCacheWorker

    arguments = (*RUN, "--method", "dms", "--engine", "vllm", "--batch-size", "2", "--out", tmp_path / "run")
    steps, report = itertools.count(), CpuCacheWorker.report_step

    def failing(self):
        if next(steps) == 150:
            raise error
        return report(self)

    with monkeypatch.context() as patch:
        patch.setattr(CpuCacheWorker, "report_step", failing)
        code, _, err = call(*arguments)
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: vLLM stopped")
    assert "finished chains are kept" in last
    assert ("--batch-size" in last) == isinstance(error, MemoryError)
    kept = samples(tmp_path / "run")
    assert kept
    code, _, err = call(*arguments)
    assert code == 0, err
    whole = samples(tmp_path / "run")
    assert len(whole) > len(kept)
    assert all(whole[key] == sample for key, sample in kept.items())


@needs_vllm
def test_forced_answers_are_those_of_the_torch_engine(call, tmp_path):
    arguments = (*RUN, "--method", "dms", "--limit", "1", "--force-answer", "6")
    for engine in ("vllm", "torch"):
        code, out, err = call(*arguments, "--engine", engine, "--out", tmp_path / engine)
        assert code == 0, out + err
    ours, theirs = samples(tmp_path / "vllm"), samples(tmp_path / "torch")
    assert set(ours) == set(theirs)
    for key, sample in ours.items():
        assert any(cut.forced for cut in theirs[key].cuts)
        for ours_cut, their_cut in zip(sample.cuts, theirs[key].cuts, strict=True):
            for field in ("L", "tokens", "inserted", "kv_reads", "peak_kv", "answer", "correct"):
                assert getattr(ours_cut, field) == getattr(their_cut, field), field
            assert (ours_cut.forced is None) == (their_cut.forced is None)
            if their_cut.forced is not None:
                assert ours_cut.forced.text == their_cut.forced.text


def test_a_vllm_that_nobody_has_tried_is_refused(monkeypatch):
    monkeypatch.setattr(versions, "installed", lambda: "0.29.1")
    with pytest.raises(
        EngineError, match=r"0\.29\.1 is installed, and the hyperscale plugin knows 0\.26\.0 and 0\.32\.0"
    ):
        resolve.resolve_config(load.make_config({"engine": "vllm"}))
    monkeypatch.setattr(versions, "installed", lambda: None)
    with pytest.raises(EngineError, match="not installed"):
        resolve.resolve_config(load.make_config({"engine": "vllm"}))


@needs_vllm
def test_methods_without_a_rule_here_are_refused():
    from hyperscale import methods
    from hyperscale.engines.vllm.harness.engine_args import check_method

    with pytest.raises(ConfigError, match="knorm does not run in vLLM"):
        resolve.resolve_config(load.make_config({"engine": "vllm", "methods": ["vanilla", "kvpress:knorm"]}))

    class Unknown(type(methods.create("window", cr=4))):
        name = "unknown"

    with pytest.raises(MethodError, match="unknown does not run in vLLM"):
        check_method(Unknown(cr=4))


def test_the_engine_tells_folders_apart():
    torch, vllm = load.make_config({}), load.make_config({"engine": "vllm"})
    assert torch.folder_name() != vllm.folder_name()
    resolved = resolve.resolve_config(torch)
    assert resolved.compared() != resolved.model_copy(update={"engine": "vllm"}).compared()
