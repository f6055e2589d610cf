"""The whole line with longer chains and forced answers, on a tiny random checkpoint; nothing is replaced."""

import json

import checkpoints
import pandas as pd
import pytest

from hyperscale import results
from hyperscale.errors import ConfigError, EngineError
from hyperscale.kv.trace import dense_peak, dense_reads
from hyperscale.results import regrade
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
    return load.make({**values, **more, "lengths": [24, 48, 72], **changes})


def execute_run(asked, folder):
    run = prepare.prepare(asked, lambda _: None)
    return run, execute.execute(run, folder, observer.Observer())


def read(folder):
    (run,) = results.read(folder)
    for line in run.samples:
        for each in (line, *line.get("branches", [])):
            each.pop("seconds")
    return {results.key(line): {k: v for k, v in line.items() if k != "run"} for line in run.samples}


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    execute_run(make(weights), folder)
    return folder


def test_samples_hold_every_branch_with_its_answer_and_costs(whole):
    grader, seen = graders.get("integer"), 0
    for line in read(whole).values():
        assert line["inserted"][-1] <= 2
        assert len(line["logprobs"]) == len(line["inserted"]) == len(line["lengths"])
        assert line["logprob"] == line["logprobs"][-1]
        ended = line["tokens"] if line["finish"] == "stop" else 10**9
        lengths = {n for n in (24, 48, 72) if n <= line["max_new_tokens"] and n < ended}
        assert {branch["at"] for branch in line["branches"]} == lengths
        for branch in line["branches"]:
            text = line["text"][: line["chars"][line["lengths"].index(branch["at"])]] + branch["text"]
            assert "</think>" in text
            assert branch["answer"] == grader.extract(text)
            assert branch["at"] < branch["tokens"] <= branch["at"] + 1 + 6
            if line["method"] == "vanilla":
                assert branch["kv_reads"] == dense_reads(line["prompt_tokens"], branch["tokens"])
                assert branch["peak_kv"] == dense_peak(line["prompt_tokens"], branch["tokens"])
            seen += 1
    assert seen > 10


def test_each_length_costs_what_a_run_of_its_own_costs(weights, whole, tmp_path):
    together = pd.read_csv(whole / results.POINTS)
    for length in (24, 48):
        _, alone = execute_run(make(weights, lengths=[length]), tmp_path / str(length))
        columns = ["method", "W", "L", "CR", "accuracy", "kv_reads", "peak_kv", "tokens", "truncated", "no_answer"]
        both = alone[columns].merge(together[columns], on=["method", "W", "L", "CR"], suffixes=("", "_together"))
        assert len(both) == len(alone) == 8
        for name in columns[4:]:
            assert both[name].tolist() == both[f"{name}_together"].tolist()
        alone_lines, long_lines = read(tmp_path / str(length)), read(whole)
        assert alone_lines.keys() == long_lines.keys()
        assert any(one["branches"] for one in alone_lines.values())
        for key, one in alone_lines.items():
            assert one["branches"] == [b for b in long_lines[key]["branches"] if b["at"] == length]


def test_batches_interruptions_and_grading_again_change_nothing(weights, whole, tmp_path):
    execute_run(make(weights, batch_size=11), tmp_path / "run")
    assert read(tmp_path / "run") == read(whole)
    path = tmp_path / "run" / results.SAMPLES
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:50])
    execute_run(make(weights, batch_size=7), tmp_path / "run")
    assert read(tmp_path / "run") == read(whole)
    done = regrade.regrade(tmp_path / "run")
    assert (done.answers, done.verdicts) == (0, 0)
    assert read(tmp_path / "run") == read(whole)


def test_extending_makes_chains_longer(weights, tmp_path):
    lengths = {}
    for extend in (0, 5):
        more = {"extend": extend, "force_answer": 0} | ({} if extend else {"extend_word": "Wait"})
        execute_run(make(weights, methods=["vanilla"], **more), tmp_path / str(extend))
        lines = read(tmp_path / str(extend)).values()
        lengths[extend] = sum(line["tokens"] for line in lines)
        assert not any("branches" in line for line in lines)
        assert any(line["inserted"][-1] for line in lines) == bool(extend)
    assert lengths[5] > lengths[0]


def test_the_vote_is_kept_with_the_run_and_can_change(weights, whole, tmp_path):
    asked = make(weights, methods=["vanilla"], lengths=[24], vote="pass")
    _, points = execute_run(asked, tmp_path)
    assert set(points.vote) == {"pass@k"}
    assert json.loads((tmp_path / results.RUN).read_text())["vote"] == "pass@k"
    for vote, wanted in ((None, "pass@k"), ("best-of-n", "best-of-n:logprob"), ("mean@k", "mean@k")):
        _, points = execute_run(asked.model_copy(update={"vote": vote}), tmp_path)
        assert set(points.vote) == {wanted}


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


def test_folders_from_before_are_still_the_same_runs(weights):
    asked = make(weights, extend=0, extend_word="Wait", force_answer=0)
    assert not {"extend", "extend_word", "force_answer", "vote"} & set(resolve.resolve(asked).compared())
    assert "extend2" in make(weights).folder_name()
    assert {"extend", "extend_word", "force_answer"} <= set(resolve.resolve(make(weights)).compared())
