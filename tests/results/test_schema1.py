"""Folders of versions before schema 2 are read, give the points that those versions made, and can be resumed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hyperscale import report, results
from hyperscale.errors import ResultsError
from hyperscale.gate.from_runs import record_runs
from hyperscale.kv.trace import dense_reads
from hyperscale.results import regrade, revote
from hyperscale.results.sample_file import format_line, parse, read_samples
from hyperscale.results.store import Store

OLD = Path(__file__).parent / "schema1"
NAMES = ("forced", "plain")


@pytest.fixture(params=NAMES)
def folder(request, tmp_path):
    return shutil.copytree(OLD / request.param, tmp_path / request.param)


def info(folder):
    return json.loads((folder / results.RUN_FILE).read_text())


def lines(folder):
    return [json.loads(line) for line in (folder / results.SAMPLES).read_text().splitlines()]


def points(folder):
    """The lines of ``points.csv``, by the columns that the old version had, less the standard error.

    The old version gave a standard error of few problems, too; today there is none below ten problems.
    """
    header, *rows = [line.split(",") for line in (folder / results.POINTS).read_text().splitlines()]
    old = (OLD / folder.name / results.POINTS).read_text().splitlines()[0].split(",")
    assert header[: len(old)] == old
    kept = [at for at, name in enumerate(old) if name != "accuracy_se"]
    return [[row[at] for at in kept] for row in (header, *rows)]


def test_the_data_are_of_the_old_schema():
    for name in NAMES:
        assert info(OLD / name)["schema"] == 1
        assert {line["schema"] for line in lines(OLD / name)} == {1}
    assert any(line["branches"] for line in lines(OLD / "forced"))
    assert not any(
        {"branches", "logprobs", "inserted", "length_invariant"} & line.keys() for line in lines(OLD / "plain")
    )


def test_points_are_those_of_the_old_version(folder):
    before = points(folder)
    (folder / results.POINTS).unlink()
    with Store(folder, info(folder)) as store:
        store.write_points()
    assert points(folder) == before


def test_every_quantity_is_where_it_was():
    for line, sample in zip(lines(OLD / "forced"), read_samples(OLD / "forced" / results.SAMPLES), strict=True):
        assert (sample.L, sample.tokens, sample.text) == (line["max_new_tokens"], line["tokens"], line["text"])
        assert [cut.tokens for cut in sample.cuts] == line["lengths"]
        for name in ("kv_reads", "peak_kv", "chars", "inserted", "correct"):
            assert [getattr(cut, name) for cut in sample.cuts] == line[name]
        assert [cut.logprob for cut in sample.cuts] == line["logprobs"]
        assert [cut.answer for cut in sample.cuts] == line["answers"]
        assert sample.forces_answers
        forced = {cut.L: cut.forced for cut in sample.cuts if cut.forced}
        assert list(forced) == [branch["at"] for branch in line["branches"]]
        for branch in line["branches"]:
            assert all(getattr(forced[branch["at"]], name) == value for name, value in branch.items() if name != "at")


def test_the_first_versions_knew_the_log_probability_of_the_whole_alone():
    for line, sample in zip(lines(OLD / "plain"), read_samples(OLD / "plain" / results.SAMPLES), strict=True):
        assert [cut.logprob for cut in sample.cuts[:-1]] == [None] * (len(sample.cuts) - 1)
        assert sample.whole.logprob == line["logprob"]
        assert sample.length_invariant
        assert not sample.forces_answers


def test_a_converted_sample_is_written_and_read_as_one_of_today(folder):
    for sample in read_samples(folder / results.SAMPLES):
        line = format_line(sample)
        assert json.loads(line)["schema"] == results.SCHEMA == 2
        assert parse(line) == sample


def test_a_folder_resumed_today_holds_lines_of_both(folder):
    with Store(folder, info(folder)) as store:
        count, (*_, last) = len(store), store.samples()
    path = folder / results.SAMPLES
    old = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(old[:-1]) + old[-1][:100])  # a kill within the last write
    with Store(folder, info(folder)) as store:
        assert len(store) == count - 1
        assert last.key not in store
        store.append(last)
        store.write_points()
    assert path.read_bytes() == b"".join(old[:-1]) + format_line(last)
    assert points(folder) == points(OLD / folder.name)


def test_reports_gates_and_scores_take_them(folder):
    report.write_report(folder)
    record = record_runs(results.read(folder))
    assert sum(len(cut.accuracy) for arm in record.arms for cut in arm.cuts) == len(
        (folder / results.POINTS).read_text().splitlines()[1:]
    )
    done = regrade.regrade(folder)
    assert (done.answers, done.verdicts) == (0, 0)
    assert points(folder) == points(OLD / folder.name)
    assert {point.vote for point in revote.revote(folder, "mean@k")} == {"mean@k"}


def test_costs_of_forced_answers_are_those_of_a_full_cache():
    samples = [sample for sample in read_samples(OLD / "forced" / results.SAMPLES) if sample.method == "vanilla"]
    for sample in samples:
        for answer in sample.forced_answers:
            assert answer.kv_reads == dense_reads(sample.prompt_tokens, answer.tokens)
    assert samples


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"kv_reads": [1.0]}, "kv_reads"),
        ({"lengths": []}, "lengths has too few entries"),
        ({"correct": None}, "correct must be a list"),
        ({"answers": [3]}, "answers.0 must be text"),
        ({"finish": ...}, "finish is missing"),
        ({"branches": [{"at": 1}]}, "branches.0"),
        ({"logprobs": [0.0]}, "logprobs"),
    ],
)
def test_corrupt_lines_are_named(tmp_path, change, fault):
    folder = shutil.copytree(OLD / "forced", tmp_path / "run")
    first, *rest = (folder / results.SAMPLES).read_text().splitlines(keepends=True)
    line = {name: value for name, value in (json.loads(first) | change).items() if value is not ...}
    (folder / results.SAMPLES).write_text(json.dumps(line) + "\n" + "".join(rest))
    with pytest.raises(ResultsError, match=rf"line 1 is corrupt \(.*{fault}.*\): delete that line"):
        results.read(folder)


def test_cuts_ascend_and_none_goes_beyond_its_maximum():
    (run,) = results.read(OLD / "forced")
    sample = next(sample for sample in run.samples if len(sample.cuts) > 2)
    first, second, *others = sample.cuts
    for tokens in (first.L + 1, 0):
        cuts = (replace(first, tokens=tokens), second) if tokens else (first, replace(second, tokens=tokens))
        with pytest.raises(ValueError, match="they must ascend, none beyond its L"):
            replace(sample, cuts=(*cuts, *others))
