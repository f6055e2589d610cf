"""Baselines: what is kept of results, what is compared with what, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from gate_records import draw
from synthetic_samples import chains

from hyperscale import gate
from hyperscale.analysis.bootstrap import make_bootstraps
from hyperscale.analysis.margins import compute_margin
from hyperscale.errors import ResultsError
from hyperscale.results.folder import Run

ARMS = (("vanilla", 1.0, 0.0), ("dms", 4.0, 0.0), ("dms", 8.0, -0.1))


def run(folder="r", seed=0, problems=12, **more):
    lines = [
        line
        for method, CR, skill in ARMS
        for line in chains(method, CR, problems=problems, width=4, skill=skill, seed=seed, **more)
    ]
    return Run(folder=_path(folder), info={"config": {"temperature": 0.8}}, samples=lines)


def _path(name):
    return Path("/nowhere") / name


def edited(record, change):
    """A record after a change to its plain data."""
    data = record.model_dump(mode="json")
    change(data)
    return gate.GateRecord.model_validate(data)


def test_a_record_holds_each_problem_s_values_of_every_point():
    found = gate.record_runs([run()])
    per_arm = {(arm.method, arm.CR): arm for arm in found.arms}
    assert list(per_arm) == [("dms", 4.0), ("dms", 8.0), ("vanilla", 1.0)]
    problems = list(found.tasks["mini_aime"].problems)
    assert problems == sorted(problems)
    compared = 0
    for cell in run().points():
        arm = per_arm[cell.series.method, cell.series.CR]
        (cut,) = [cut for cut in arm.cuts if cut.L == cell.L]
        order = [cell.problems.index(problem) for problem in problems]
        np.testing.assert_allclose(cut.accuracy[cell.W], cell.accuracy[order], atol=6e-5)
        np.testing.assert_allclose(np.multiply(cut.kv_reads, cell.W), cell.costs["kv_reads"][order], rtol=6e-5)
        np.testing.assert_allclose(np.multiply(cut.peak_kv, cell.W), cell.costs["peak_kv"][order], rtol=6e-5)
        assert cut.chains == (4,)
        compared += 1
    assert compared == sum(len(cut.accuracy) for arm in found.arms for cut in arm.cuts) == 36


def test_settings_of_sampling_are_kept_where_they_are_used():
    """So that a baseline from before them differs in nothing from results that do not use them."""

    def about(**config):
        made = run()
        made.info["config"].update(config)
        return gate.record_runs([made]).arms[0].about

    before = about()
    assert before == about(top_k=0, min_p=0.0, repetition_penalty=1.0)
    assert about(top_k=20, repetition_penalty=1.05) == before | {"top_k": 20, "repetition_penalty": 1.05}


def test_a_file_gives_back_what_was_written_and_is_small(tmp_path):
    found = gate.record_runs([run(problems=200)])
    path = tmp_path / "new" / "baseline.json"
    gate.write_baseline(found, path)
    assert gate.read_baseline(path) == found
    values = 200 * sum(len(cut.accuracy) + 2 for arm in found.arms for cut in arm.cuts)
    assert path.stat().st_size < 8 * values
    lines = path.read_text().splitlines()
    assert len(lines) > len([cut for arm in found.arms for cut in arm.cuts]), "a line for each cut, for git's diffs"


def test_seeds_in_folders_of_their_own_are_united():
    apart = gate.record_runs([run("a", 0), run("b", 1)])
    together = gate.record_runs([Run(_path("c"), run().info, run("c", 0).samples + run("c", 1).samples)])
    assert apart == together
    assert apart.arms[0].about["seeds"] == [0, 1]
    assert apart.arms[0].cuts[0].chains == (4, 4)


def test_margins_are_those_of_the_rest_of_hyperscale():
    old, new = run(seed=0), run(seed=1)
    found = gate.compare(gate.record_runs([old]), gate.record_runs([new]), confidence=95)
    rows = {row.name: row for row in found.rows if row.CR is None}
    assert len(rows) == 4
    for axis in ("kv_reads", "peak_kv"):
        for side, each in (("old", old), ("new", new)):
            margin = compute_margin(
                make_bootstraps(each.points(), n_boot=1)["mini", "mini_aime"], "dms", "vanilla", axis
            )
            assert getattr(rows[f"margin, {axis}, linear"], side) == pytest.approx(margin.linear, abs=0.02)
            assert getattr(rows[f"margin, {axis}, log2"], side) == pytest.approx(margin.log2, abs=0.02)


def test_accuracies_and_reads_are_those_of_the_points():
    old, new = run(seed=0), run(seed=1)
    found = gate.compare(gate.record_runs([old]), gate.record_runs([new]), confidence=95)
    before, after = ({(c.series.method, c.label): c.row() for c in each.points()} for each in (old, new))
    points = [row for row in found.rows if row.CR is not None]
    assert len(points) == len(before)
    for row in points:
        a, b = before[row.method, row.name], after[row.method, row.name]
        assert (row.old, row.new) == pytest.approx((a["accuracy"], b["accuracy"]), abs=0.01)
        assert row.change == pytest.approx(b["accuracy"] - a["accuracy"], abs=0.01)
        assert row.reads == pytest.approx(b["kv_reads"] / a["kv_reads"], rel=1e-3)


def test_frontiers_without_common_costs_have_no_margin_and_do_not_fail():
    def cheap(data):
        for arm in data["arms"]:
            for cut in arm["cuts"]:
                if arm["method"] == "dms":
                    cut["kv_reads"] = [value / 1e6 for value in cut["kv_reads"]]

    found = gate.compare(draw(0), edited(draw(1), cheap))
    verdicts = {row.name: row.verdict for row in found.rows if row.CR is None}
    assert verdicts["margin, kv_reads, log2"] == "NA"
    assert verdicts["margin, peak_kv, log2"] == "ok"
    assert not found.falls


def test_without_vanilla_accuracies_alone_are_compared():
    old, new = (edited(draw(i), lambda data: data["arms"].pop(1) and data["arms"].pop(2)) for i in (0, 1))
    found = gate.compare(old, new)
    assert {(row.method, row.CR) for row in found.rows} == {("dms", 8.0)}


def test_costs_that_rise_fail_through_the_margin():
    """A method that compresses no more keeps its accuracy and loses its reason to be."""

    def dear(data):
        for arm in data["arms"]:
            for cut in arm["cuts"]:
                if arm["method"] == "dms":
                    cut["kv_reads"] = [value * 4 for value in cut["kv_reads"]]

    found = gate.compare(draw(0, 60), edited(draw(0, 60), dear))
    assert {row.name for row in found.falls} == {"margin, kv_reads, linear", "margin, kv_reads, log2"}


def test_a_single_model_is_compared_whatever_its_name():
    found = gate.compare(draw(0), draw(1, model="./retrained"))
    assert "the model was mini, now ./retrained" in found.notes
    assert {row.model for row in found.rows} == {"mini"}


def test_other_settings_are_noted():
    def narrow(data):
        data["arms"][0]["about"]["params"] = {"window": 8}

    found = gate.compare(
        edited(draw(0), lambda d: d["arms"][0]["about"].update(params={"window": 16})), edited(draw(1), narrow)
    )
    assert "dms 8×: params.window was 16, now 8" in found.notes
    assert "dms 8×, vanilla: seeds was [0], now [1]" in found.notes


def test_other_weights_are_noted_by_all_of_them_where_both_sides_know_them():
    def record(ends, whole):
        made = run()
        arms = ("vanilla", "dms 4×", "dms 8×")
        made.info["checkpoints"] = dict.fromkeys(arms, ends)
        if whole:
            made.info["weights"] = dict.fromkeys(arms, whole)
        return gate.record_runs([made])

    def notes(old, new):
        return [note for note in gate.compare(record(*old), record(*new)).notes if "weights" in note]

    assert notes(("a", "b"), ("a", "b")) == []
    # A layer in the middle of a large file changes what all of it says, and not what its ends say.
    assert notes(("a", "b"), ("a", "c")) == ['dms 4×, dms 8×, vanilla: all_weights was "b", now "c"']
    assert notes(("a", None), ("a", "c")) == notes(("a", "b"), ("a", None)) == []
    assert notes(("a", None), ("x", "c")) == ['dms 4×, dms 8×, vanilla: weights was "a", now "x"']


def test_points_beyond_the_baseline_are_noted_and_change_nothing():
    def fewer(data):
        for arm in data["arms"]:
            del arm["cuts"][0]

    small = gate.compare(edited(draw(0), fewer), edited(draw(1), fewer))
    large = gate.compare(edited(draw(0), fewer), draw(1))
    assert repr(small.rows) == repr(large.rows)  # as NaN is not NaN
    assert any("12 points of the results are not in the baseline" in note for note in large.notes)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d["tasks"]["one"].update(version="2.0"), "the version of one is 1.0 in the baseline and 2.0"),
        (lambda d: d["tasks"]["one"].update(vote="majority"), "the vote of one is pass"),
        (lambda d: d["tasks"]["one"]["problems"].update(p0003="f" * 16), "1 of 24 problems of one differ"),
        (lambda d: d["arms"].pop(0), "lack 6 of the baseline's 24 points (1-256-8 of dms on one, "),
        (lambda d: d["arms"][0]["cuts"].pop(1), "lack 3 of the baseline's 24 points (1-512-8 of dms on one, "),
        (
            lambda d: d["arms"][0]["cuts"][0].update(chains=[2, 2]),
            "rests on 4 chains a problem in the baseline and 2+2",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(change, text):
    with pytest.raises(ResultsError) as error:
        gate.compare(draw(0), edited(draw(1), change))
    assert text in str(error.value)
    assert "baseline" in str(error.value)


def test_other_problems_are_refused():
    with pytest.raises(ResultsError, match=r"4 are missing, 0 are new, e\.g\. p0020"):
        gate.compare(draw(0, 24), draw(1, 20))


def test_too_few_problems_to_ever_fail_are_refused():
    for count in (8, 9):
        found = rf"{count} problems of one beside 1 more task cannot tell a fall .* 99 % .* at least 10 "
        with pytest.raises(ResultsError, match=found):
            gate.compare(draw(0, count), draw(1, count))
    with pytest.raises(ResultsError, match=r"8 problems of t0 cannot tell a fall from noise at 99 % .* at least 9 "):
        gate.compare(_flat(8, [1.0]), _flat(8, [1.0]))
    assert gate.compare(draw(0, 8), draw(0, 8, fall={"dms": 1, "vanilla": 1}), confidence=90).falls


def _flat(problems, accuracies, reads=1000.0):
    """A record of one task for each accuracy, in which all problems are alike."""
    data = {"format": 1, "hyperscale": "0", "tasks": {}, "arms": []}
    for number, accuracy in enumerate(accuracies):
        names = {f"p{i:04}": "hash" for i in range(problems)}
        data["tasks"][f"t{number}"] = {"version": "1", "vote": "majority", "problems": names}
        cut = {"L": 64, "chains": [4], "accuracy": {"1": [accuracy] * problems}}
        cut |= {"kv_reads": [reads] * problems, "peak_kv": [1000.0] * problems}
        arm = {"model": "m", "task": f"t{number}", "method": "vanilla", "CR": 1.0, "about": {}, "cuts": [cut]}
        data["arms"].append(arm)
    return gate.GateRecord.model_validate(data)


@pytest.mark.parametrize("tasks", [1, 2, 3, 6, 10])
@pytest.mark.parametrize("problems", [8, 9, 10, 11, 12, 13])
def test_a_task_in_which_every_problem_falls_never_passes(problems, tasks):
    """Also where the others change by a little on every problem, which no swap of problems tells from much."""
    for fallen in range(tasks):
        after = _flat(problems, [float(number != fallen) for number in range(tasks)], 999.0)
        if tasks * 2.0 ** (1 - problems) > 0.005:
            with pytest.raises(ResultsError, match="cannot tell a fall from noise"):
                gate.compare(_flat(problems, [1.0] * tasks), after)
        else:
            assert [row.task for row in gate.compare(_flat(problems, [1.0] * tasks), after).falls] == [f"t{fallen}"]


def test_more_confidence_than_the_swaps_can_tell_is_refused():
    before, after = _flat(100, [1.0]), _flat(100, [0.0])
    assert gate.compare(before, after, confidence=99.97).falls
    for confidence in (99.98, 99.9999):
        with pytest.raises(ResultsError, match=r"4,000 swaps .* at a confidence of .*: choose at most 99.97"):
            gate.compare(before, after, confidence=confidence)


@pytest.mark.parametrize("values", [{"tolerance": -1}, {"tolerance": float("nan")}, {"confidence": 100}])
def test_arguments_out_of_range(values):
    with pytest.raises(ResultsError):
        gate.compare(draw(0), draw(1), **values)


def test_unfinished_runs_are_refused():
    part = run()
    part.samples.pop()
    with pytest.raises(ResultsError, match="11 of 12 problems have every chain of dms 8× on mini_aime: finish"):
        gate.record_runs([part])
    with pytest.raises(ResultsError, match="no finished chain"):
        gate.record_runs([Run(_path("r"), {}, [])])


def test_runs_that_cannot_be_united_are_refused():
    with pytest.raises(ResultsError, match=r"is in .*/a and .*/b: pass the folder of one run"):
        gate.record_runs([run("a"), run("b")])
    with pytest.raises(ResultsError, match="problems have every chain"):
        gate.record_runs([run("a"), run("b", 1, problems=13)])
    with pytest.raises(ResultsError, match="two prompts"):
        gate.record_runs([run("a"), run("b", 1, prompt_hash="1" * 16)])
    with pytest.raises(ResultsError, match=r"several versions of mini_aime \(1.0, 1.1\)"):
        gate.record_runs([run("a"), run("b", 1, task_version="1.1")])
    with pytest.raises(ResultsError, match="differ in the method's parameters"):
        gate.record_runs([run("a"), run("b", 1, params={"window": 8})])


def garble(*changes):
    data = draw(0).model_dump(mode="json")
    for change in changes:
        change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a baseline"),
        ("{", "is not a baseline"),
        ("[]", "is not a baseline"),
        ("[" * 100_000, "is not a baseline"),
        ('{"format": 2}', "has format 2, this version reads 1"),
        (garble(lambda d: d["arms"].clear()), "arms"),
        (garble(lambda d: d.update(more=1)), "more"),
        (garble(lambda d: d["tasks"].pop("two")), "the task two is not described"),
        (garble(lambda d: d["arms"][0]["cuts"][0]["kv_reads"].pop()), "does not have a value for each of 24 problems"),
        (garble(lambda d: d["arms"][0]["cuts"][0]["accuracy"].update({"1": [2.0] * 24})), "accuracy"),
        (garble(lambda d: d["arms"][0]["cuts"][0]["accuracy"].update({"0": [0.0] * 24})), "accuracy"),
        (garble(lambda d: d["arms"][0]["cuts"][0].update(peak_kv=[float("nan")] * 24)), "peak_kv"),
        (garble(lambda d: d["arms"].append(d["arms"][0])), "occurs twice"),
        (garble(lambda d: d["tasks"]["one"].update(problems={"b": "", "a": ""})), "not sorted"),
    ],
)
def test_broken_files_are_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "baseline.json"
    path.write_text(text)
    with pytest.raises(ResultsError) as error:
        gate.read_baseline(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 400


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(ResultsError, match=r"cannot read the baseline .*none.json"):
        gate.read_baseline(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ResultsError, match="not UTF-8"):
        gate.read_baseline(tmp_path / "bytes.json")
    with pytest.raises(ResultsError, match="cannot write the baseline"):
        gate.write_baseline(draw(0), tmp_path / "bytes.json" / "baseline.json")
