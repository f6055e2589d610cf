"""Costs are judged by themselves; what baseline and results share is noted; what is no verdict is exit code 2."""

import json
import shutil
from dataclasses import replace
from functools import partial

import commandline
import pytest
from gate_records import draw
from processes import ends_in_a_line, run_command
from synthetic_samples import chains, write_samples

from hyperscale import gate, results
from hyperscale.errors import ResultsError
from hyperscale.gate import reports
from hyperscale.gate.baseline import GateRecord


def scaled(record, *, method="dms", axis="kv_reads", by=3.0):
    """The record with another cost of every chain of a method."""
    data = record.model_dump(mode="json")
    for arm in data["arms"]:
        for cut in arm["cuts"]:
            if arm["method"] == method:
                cut[axis] = [value * by for value in cut[axis]]
    return GateRecord.model_validate(data)


@pytest.mark.parametrize(("axis", "verdict"), [("kv_reads", "reads rose"), ("peak_kv", "peak rose")])
def test_a_cost_that_rises_fails_where_no_margin_can_show_it(axis, verdict):
    """Three times the reads at the same accuracy: the frontiers have no common costs, and margins are NA."""
    found = gate.compare(draw(0), scaled(draw(0), axis=axis, by=3000.0))
    margins = [row for row in found.rows if row.name.startswith(f"margin, {axis}")]
    assert {row.verdict for row in margins} == {"NA"}
    assert not found.falls
    assert {row.verdict for row in found.failures} == {verdict}
    assert {row.method for row in found.failures} == {"dms"}
    assert len(found.failures) == sum(row.method == "dms" and row.CR is not None for row in found.rows)
    change = next(cost for cost in found.failures[0].costs if cost.axis == axis)
    assert (change.ratio, change.percent) == pytest.approx((3000, 299_900))
    assert change.low > 0


def test_costs_have_tolerances_of_their_own_and_may_fall():
    old, new = draw(0), scaled(draw(0), by=1.5)
    assert gate.compare(old, new).failures
    verdicts = {
        limit: {row.verdict for row in gate.compare(old, new, 99, reads_tolerance=limit, peak_tolerance=9).rows}
        for limit in (49, 51)
    }
    assert verdicts == {49: {"ok", "reads rose"}, 51: {"ok"}}
    assert not gate.compare(old, scaled(draw(0), by=0.2)).failures
    for name in ("reads_tolerance", "peak_tolerance"):
        for value in (-1.0, float("nan"), float("inf")):
            with pytest.raises(ResultsError, match="is no rise in percent"):
                gate.compare(old, old, **{name: value})


def test_a_rise_that_is_noise_passes():
    """One long chain may double the mean; the test over problems knows that it is one."""
    data = draw(0).model_dump(mode="json")
    for arm in data["arms"]:
        for cut in arm["cuts"]:
            cut["kv_reads"][0] += 3 * sum(cut["kv_reads"])
    found = gate.compare(draw(0), GateRecord.model_validate(data))
    assert not found.failures
    assert min(row.reads for row in found.rows if row.reads is not None) > 3


def test_problems_that_are_all_right_leave_room_for_doubt():
    """No problem fell out of 24, with other chains: that is no proof that none would."""

    def perfect(seed):
        data = draw(seed).model_dump(mode="json")
        for arm in data["arms"]:
            for cut in arm["cuts"]:
                cut["accuracy"] = {width: [1.0] * len(values) for width, values in cut["accuracy"].items()}
        return GateRecord.model_validate(data)

    found = gate.compare(perfect(0), perfect(1))
    points = [row for row in found.rows if row.CR is not None]
    assert {row.change for row in points} == {0.0}
    assert all(-30 < row.low < -10 and 10 < row.high < 30 for row in points)
    assert not found.failures


def test_few_problems_have_a_verdict_and_no_interval():
    found = gate.compare(draw(0, 9), draw(0, 9, fall={"dms": 1}), confidence=95)
    assert all(row.low != row.low for row in found.rows)
    assert "[" not in "".join(reports._texts(found.rows[0]))


def write(folder, samples):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"schema": 2, "config": {"temperature": 0.8}}))
    write_samples(folder / "samples.jsonl", samples)
    return folder


def run(seed, problems=12):
    arms = (("vanilla", 1.0), ("dms", 8.0))
    return [chain for arm in arms for chain in chains(*arm, problems=problems, width=2, seed=seed)]


def at_lengths(seed, lost_at=0):
    """A run of a context task at two lengths; DMS is wrong at one of them where it is told so."""
    made = []
    for context in (512, 4096):
        for chain in run(seed, problems=40):
            named = replace(chain, task=f"vt@{context}")
            wrong = context == lost_at and chain.method == "dms"
            cuts = tuple(replace(cut, answer="2" if wrong else "1", correct=not wrong) for cut in chain.cuts)
            made.append(replace(named, cuts=cuts))
    return made


@pytest.mark.parametrize("lost_at", [512, 4096])
def test_a_fall_at_one_length_of_prompts_is_told_of_that_length(lost_at, tmp_path):
    old, new, lost = (
        gate.record_runs(results.read(write(tmp_path / name, samples)))
        for name, samples in (("a", at_lengths(0)), ("b", at_lengths(1)), ("c", at_lengths(1, lost_at)))
    )
    assert not gate.compare(old, new, 2.0).falls
    assert {row.task for row in gate.compare(old, lost, 2.0).falls} == {f"vt@{lost_at}"}


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    return partial(commandline.caller(monkeypatch, capsys, tmp_path), "gate")


def test_the_same_chains_are_noted(call, tmp_path):
    """As another seed's, as half of it, as a second folder: copied chains are no evidence."""
    old = write(tmp_path / "old", run(0))
    assert call(old, "--write-baseline", "b.json")[0] == 0
    copied = write(tmp_path / "copied", [replace(chain, seed=7) for chain in run(0)])
    code, out, _ = call(copied, "--baseline", "b.json")
    assert code == 0
    assert "dms 8× on mini_aime, vanilla on mini_aime: on all problems the chains are the baseline's own" in out
    half = [replace(chain, seed=7) for chain in run(0) if chain.problem <= "p4"]
    half += [chain for chain in (replace(c, seed=7) for c in run(1)) if chain.problem > "p4"]
    code, out, _ = call(write(tmp_path / "half", half), "--baseline", "b.json", "--tolerance", "99")
    assert "of 12 problems the chains are the baseline's own" in " ".join(out.split())
    code, out, _ = call(write(tmp_path / "other", run(1)), "--baseline", "b.json", "--tolerance", "99")
    assert "baseline's own" not in out
    assert "word for word" not in out


def test_copies_within_the_results_are_noted(call, tmp_path):
    root = tmp_path / "runs"
    write(root / "a", run(0))
    write(root / "b", [replace(chain, seed=1) for chain in run(0)])
    code, out, _ = call(root, "--write-baseline", "b.json")
    assert code == 0
    assert "of 48 chains of vanilla on mini_aime repeat another chain of their problem word for word" in out


def test_a_repeated_line_is_noted_and_counts_once(call, tmp_path):
    old = write(tmp_path / "old", run(0))
    call(old, "--write-baseline", "b.json")
    twice = write(tmp_path / "twice", run(0) + run(0)[:3])
    code, out, _ = call(twice, "--baseline", "b.json")
    assert code == 0
    assert "each chain counts once" in out


def test_what_would_be_refused_as_a_baseline_is_not_written_as_one(call, tmp_path):
    few = write(tmp_path / "few", run(0, problems=5))
    commandline.fails(call(few, "--write-baseline", "b.json"), "5 problems of mini_aime cannot tell a fall from noise")
    for option in ("--tolerance", "--reads-tolerance", "--peak-tolerance"):
        commandline.fails(
            call(write(tmp_path / option, run(0)), "--write-baseline", "b.json", option, "-1"), "tolerance"
        )
    assert not (tmp_path / "b.json").exists()


@pytest.mark.e2e
def test_no_disturbance_gives_the_exit_code_of_a_fall(tmp_path):
    old, worse = write(tmp_path / "old", run(0, 40)), tmp_path / "worse"
    gate.write_baseline(gate.record_runs(results.read(old)), tmp_path / "b.json")
    shutil.copytree(old, worse)
    chains_of_worse = [
        replace(chain, cuts=tuple(replace(cut, correct=False) for cut in chain.cuts)) for chain in run(0, 40)
    ]
    write_samples(worse / "samples.jsonl", chains_of_worse)
    baseline = ("--baseline", tmp_path / "b.json")
    assert run_command("gate", old, *baseline)[0] == 0
    assert run_command("gate", worse, *baseline)[0] == 1
    for folder in (old, worse):
        ends_in_a_line(run_command("gate", folder, *baseline, after=">/dev/full"), "No space left")
        ends_in_a_line(run_command("gate", folder, *baseline, after=">&-"), "closed")
    ends_in_a_line(run_command("gate", old, *baseline, "--junit", "/dev/full"), "No space left")
    ends_in_a_line(run_command("gate", old, *baseline, "--summary", "/dev/full"), "No space left")
    ends_in_a_line(run_command("gate", old, *baseline, before="ulimit -v 500000"), "ulimit -v")
    code, out, _ = run_command("gate", worse, *baseline, "--junit", "/dev/stdout", PYTHONIOENCODING="ascii")
    assert code == 1
    assert "FAILED" in out
    assert "<testsuites" in out
    with (worse / "samples.jsonl").open("ab") as file:
        file.write(b"[" * 5000 + b"\n")
    ends_in_a_line(run_command("gate", worse, *baseline), "is corrupt")
