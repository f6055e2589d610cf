"""The whole line with longer chains and forced answers, on a tiny random checkpoint; nothing is replaced."""

import json

import checkpoints
import pandas as pd
import pytest
from stored_chains import stored_chains

from hyperscale import results
from hyperscale.errors import ConfigError, EngineError
from hyperscale.kv.trace import dense_peak, dense_reads
from hyperscale.results import manifest, regrade
from hyperscale.results.points import table
from hyperscale.run import execute, observer, prepare
from hyperscale.run.config import load, resolve
from hyperscale.scoring import graders

pytestmark = pytest.mark.e2e

WORD = "\n"  # which the built-in vocabulary has


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("weights"))


def make(weights, **changes):
    values = {"model": str(weights), "methods": ["vanilla", "dms"], "crs": [8], "tasks": ["mini_aime"], "limit": 2}
    more = {"budget": "all", "grid": "mini", "extend": 2, "extend_word": WORD, "force_answer": 6}
    return load.make_config({**values, **more, "lengths": [24, 48, 72], **changes})


def execute_run(asked, folder):
    run = prepare.prepare_run(asked, lambda _: None)
    return run, execute.execute_run(run, folder, observer.RunObserver())


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    execute_run(make(weights), folder)
    return folder


def test_samples_hold_every_forced_answer_with_its_answer_and_costs(whole):
    grader, seen = graders.get("integer"), 0
    for sample in stored_chains(whole).values():
        assert sample.whole.inserted <= 2
        for cut in sample.cuts:
            ended = cut is sample.whole and sample.finish == "stop"
            assert (cut.forced is None) == ended
            if ended:
                continue
            assert cut.tokens == cut.L
            text = sample.text[: cut.chars] + cut.forced.text
            assert "</think>" in text
            assert cut.forced.answer == grader.extract(text)
            assert cut.L < cut.forced.tokens <= cut.L + 1 + 6
            if sample.method == "vanilla":
                assert cut.forced.kv_reads == dense_reads(sample.prompt_tokens, cut.forced.tokens)
                assert cut.forced.peak_kv == dense_peak(sample.prompt_tokens, cut.forced.tokens)
            seen += 1
        assert {cut.L for cut in sample.cuts[:-1]} == {n for n in (24, 48, 72) if n < min(sample.L, sample.tokens)}
    assert seen > 10


def test_each_length_costs_what_a_run_of_its_own_costs(weights, whole, tmp_path):
    together = pd.read_csv(whole / results.POINTS)
    for length in (24, 48):
        _, alone = execute_run(make(weights, lengths=[length]), tmp_path / str(length))
        columns = ["method", "W", "L", "CR", "accuracy", "kv_reads", "peak_kv", "tokens", "truncated", "no_answer"]
        both = table(alone)[columns].merge(together[columns], on=["method", "W", "L", "CR"], suffixes=("", "_together"))
        assert len(both) == len(alone) == 8
        for name in columns[4:]:
            assert both[name].tolist() == both[f"{name}_together"].tolist()
        alone_lines, long_lines = stored_chains(tmp_path / str(length)), stored_chains(whole)
        assert alone_lines.keys() == long_lines.keys()
        assert any(sample.forced_answers for sample in alone_lines.values())
        for key, sample in alone_lines.items():
            forced = [cut.forced for cut in long_lines[key].cuts if length == cut.L and cut.forced]
            assert sample.forced_answers == forced


def test_batches_interruptions_and_grading_again_change_nothing(weights, whole, tmp_path):
    execute_run(make(weights, batch_size=11), tmp_path / "run")
    assert stored_chains(tmp_path / "run") == stored_chains(whole)
    path = tmp_path / "run" / results.SAMPLES
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:50])
    execute_run(make(weights, batch_size=7), tmp_path / "run")
    assert stored_chains(tmp_path / "run") == stored_chains(whole)
    done = regrade.regrade(tmp_path / "run")
    assert (done.answers, done.verdicts) == (0, 0)
    assert stored_chains(tmp_path / "run") == stored_chains(whole)


def test_extending_makes_chains_longer(weights, tmp_path):
    lengths = {}
    for extend in (0, 5):
        more = {"extend": extend, "force_answer": 0} | ({} if extend else {"extend_word": "Wait"})
        execute_run(make(weights, methods=["vanilla"], **more), tmp_path / str(extend))
        lines = stored_chains(tmp_path / str(extend)).values()
        lengths[extend] = sum(line.tokens for line in lines)
        assert not any(line.forces_answers or line.forced_answers for line in lines)
        assert any(line.whole.inserted for line in lines) == bool(extend)
    assert lengths[5] > lengths[0]


def test_the_vote_is_kept_with_the_run_and_can_change(weights, whole, tmp_path):
    asked = make(weights, methods=["vanilla"], lengths=[24], vote="pass")
    _, points = execute_run(asked, tmp_path)
    assert {point.vote for point in points} == {"pass@k"}
    assert json.loads((tmp_path / results.RUN_FILE).read_text())["vote"] == "pass@k"
    for vote, wanted in ((None, "pass@k"), ("best-of-n", "best-of-n:logprob"), ("mean@k", "mean@k")):
        _, points = execute_run(asked.model_copy(update={"vote": vote}), tmp_path)
        assert {point.vote for point in points} == {wanted}


def test_settings_that_cannot_be_used_are_refused(weights, tmp_path):
    for changes, error, said in (
        ({"extend_word": "Wait"}, EngineError, "cannot write the continuation word 'Wait'.*, e.g. "),
        ({"extend": 0}, ConfigError, "--extend-word .* goes with --extend N"),
        ({"extend": -1}, ConfigError, "--extend must be at least 0"),
        ({"force_answer": -1}, ConfigError, "--force-answer must be at least 0"),
        ({"vote": "luck"}, ConfigError, "unknown strategy 'luck'"),
        ({"vote": "best-of-n:judge"}, ConfigError, "hyperscale score"),
    ):
        with pytest.raises(error, match=said):
            execute_run(make(weights, **changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_steering_tells_runs_and_folders_apart(weights):
    plain = make(weights, extend=0, extend_word="Wait", force_answer=0)
    before, after = ({"config": resolve.resolve_config(asked).compared()} for asked in (plain, make(weights)))
    without = {name: value for name, value in before["config"].items() if name not in ("extend", "force_answer")}
    assert manifest.changes({"config": without}, before) == []  # as in folders from before there was steering
    changed = {line.split()[0] for line in manifest.changes(before, after)}
    assert changed == {"extend", "extend_word", "force_answer"}
    assert "extend2" in make(weights).folder_name()
