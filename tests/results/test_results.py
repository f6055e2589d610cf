import errno
import json
import os
import resource
import tracemalloc
from dataclasses import replace
from datetime import datetime

import pytest
import synthetic_samples

from hyperscale import results
from hyperscale.errors import ResultsError
from hyperscale.results.manifest import read_date, read_info
from hyperscale.results.sample_file import format_line
from hyperscale.results.store import Store

INFO = {"config": {"model": "mini", "limit": 3}, "tasks": {"mini_aime": "1"}, "checkpoints": {"vanilla": "ab"}}


def sample(chain=0, **changes):
    fields = {"problem": "p", "tokens": 2, "L": 256, "answer": "7", "right": True, "text": "é7\u2028\n"}
    return synthetic_samples.sample(**fields | {"chain": chain} | changes)


def numbers(samples):
    return [sample.chain for sample in samples]


def write(folder, count=3):
    with Store(folder, INFO) as store:
        for chain in range(count):
            store.append(sample(chain))


def corrupt(line, path, value):
    """A line with another value at a path of keys; a value of ``...`` takes the key away."""
    fields = json.loads(line)
    *parents, last = path
    place = fields
    for name in parents:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(fields).encode() + b"\n"


CUT = ("cuts", 0)


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("CR",), None, "CR must be a number, got None"),
        (("CR",), "8", "CR must be a number, got '8'"),
        (("CR",), float("nan"), "CR must be a finite number"),
        (("seed",), -1, "seed must be at least 0, got -1"),
        (("seed",), 0.5, "seed must be a whole number, got 0.5"),
        (("seed",), ..., "seed is missing"),
        (("prompt_hash",), ..., "prompt_hash is missing"),
        (("finish",), "soon", "finish must be 'stop' or 'length', got 'soon'"),
        (("run",), "r", "run is unknown"),
        (("cuts",), [], "cuts has too few entries"),
        (("cuts",), {}, "cuts must be a list"),
        (("L",), 255, "has cuts at .256., which must ascend to the chain's own L, 255"),
        ((*CUT, "kv_reads"), [None], "cuts.0.kv_reads must be a number"),
        ((*CUT, "kv_reads"), -1, "cuts.0.kv_reads must be at least 0"),
        ((*CUT, "correct"), "yes", "cuts.0.correct must be true or false"),
        ((*CUT, "answer"), ..., "cuts.0.answer is missing"),
        ((*CUT, "at"), 1, "cuts.0.at is unknown"),
    ],
)
def test_a_line_with_a_field_of_another_kind_is_corrupt(tmp_path, path, value, fault):
    write(tmp_path)
    with (tmp_path / results.SAMPLES).open("ab") as file:
        file.write(corrupt(format_line(sample(3)), path, value))
    with pytest.raises(ResultsError, match=rf"samples\.jsonl line 4 is corrupt \({fault}.*\): delete that line"):
        results.read(tmp_path)


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "run")
    (run,) = results.read(tmp_path)
    assert numbers(run.samples) == [0, 1, 2]
    assert run.samples[0] == sample(0)
    assert run.name == "run"
    assert run.info["config"] == INFO["config"]
    assert results.read(tmp_path / "run")[0].samples == run.samples


def test_a_chain_is_stored_once(tmp_path):
    write(tmp_path)
    with Store(tmp_path, INFO) as store:
        assert sample(1).key in store
        assert sample(3).key not in store
        store.append(sample(1, text="another"))
    assert len(results.read(tmp_path)[0].samples) == 3


@pytest.mark.parametrize(
    "change",
    [{"task": "x"}, {"problem": "q"}, {"method": "dms"}, {"CR": 8.0}, {"seed": 1}, {"chain": 9}],
)
def test_chains_that_differ_in_the_key_are_kept_apart(tmp_path, change):
    with Store(tmp_path, INFO) as store:
        store.append(sample(0))
        store.append(replace(sample(0), **change))
        assert len(store) == len(list(store.samples())) == 2


def test_the_length_is_part_of_the_key_only_where_the_rule_depends_on_it():
    assert sample(0).key == sample(0, L=512).key
    assert sample(0, length_invariant=False).key != sample(0, L=512, length_invariant=False).key


@pytest.mark.parametrize("keep", [1, 20, -1])
def test_an_unfinished_last_line_is_dropped_and_only_that_chain_is_missing(tmp_path, keep):
    write(tmp_path)
    path = tmp_path / results.SAMPLES
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:keep])
    assert len(results.read(tmp_path)[0].samples) == 2
    with Store(tmp_path, INFO) as store:
        assert numbers(store.samples()) == [0, 1]
        assert path.read_bytes() == b"".join(lines[:2])
        store.append(sample(2))
    assert path.read_bytes() == b"".join(lines)


@pytest.mark.parametrize("bad", [b"{oops\n", b"\n", b"[]\n", b"\xff\xfe\n", b'{"schema":2,\n', b"\x00\x00\n"])
def test_any_other_bad_line_is_an_error_that_names_it(tmp_path, bad):
    write(tmp_path)
    path = tmp_path / results.SAMPLES
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + bad + lines[2])
    before = path.read_bytes()
    for use in (lambda: results.read(tmp_path), lambda: Store(tmp_path, INFO).__enter__()):
        with pytest.raises(ResultsError, match=r"samples\.jsonl line 2 is corrupt.*: delete that line"):
            use()
    assert path.read_bytes() == before
    write(tmp_path / "free")  # the failed attempts gave their lock back
    path.write_bytes(lines[0] + lines[2])
    with Store(tmp_path, INFO) as store:
        assert numbers(store.samples()) == [0, 2]


def test_another_schema_is_refused(tmp_path):
    write(tmp_path)
    path = tmp_path / results.SAMPLES
    path.write_text(path.read_text().replace('"schema":2', '"schema":99'))
    with pytest.raises(ResultsError, match="line 1 has schema 99"):
        results.read(tmp_path)


def test_one_writer_at_a_time(tmp_path):
    with Store(tmp_path, INFO), pytest.raises(ResultsError, match="another process is writing"):
        Store(tmp_path, INFO).__enter__()
    with Store(tmp_path, INFO):
        pass


def test_another_configuration_is_refused_and_named(tmp_path):
    write(tmp_path)
    changed = {**INFO, "config": {"model": "mini", "limit": 5, "new": 1}, "checkpoints": {"vanilla": "cd"}}
    with pytest.raises(ResultsError) as error:
        Store(tmp_path, changed).__enter__()
    text = str(error.value)
    assert "limit was 3, now 5" in text
    assert "new was null, now 1" in text
    assert 'checkpoints.vanilla was "ab", now "cd"' in text
    assert "model" not in text
    write(tmp_path, count=4)


def test_a_run_has_the_name_of_its_folder(tmp_path):
    write(tmp_path / "old", count=1)
    (tmp_path / "old").rename(tmp_path / "new")
    with Store(tmp_path / "new", INFO) as store:
        store.append(sample(1))
    (run,) = results.read(tmp_path)
    assert (run.name, len(run.samples)) == ("new", 2)
    assert {point.series.run for point in run.points()} == {"new"}


def test_a_run_has_a_name_however_its_folder_is_reached(tmp_path, monkeypatch):
    write(tmp_path / "run", count=1)
    (tmp_path / "link").symlink_to("run")
    (tmp_path / "run" / "inside").mkdir()
    assert results.read(tmp_path / "link")[0].name == "link"
    for place, path in (("run", "."), ("run/inside", ".."), (".", "run/"), (".", "run/inside/..")):
        monkeypatch.chdir(tmp_path / place)
        assert results.read(path)[0].name == "run"


def test_every_chain_is_on_the_disk_before_the_next(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def sync(descriptor):
        synced.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    with Store(tmp_path, INFO) as store:
        synced.clear()
        for chain in range(3):
            store.append(sample(chain))
            assert len(synced) == chain + 1
            assert synced[-1] == (tmp_path / results.SAMPLES).stat().st_size
        store.append(sample(0))  # known: nothing is written
        assert len(synced) == 3


def test_texts_are_not_held_in_memory(tmp_path):
    with Store(tmp_path, INFO) as store:
        for chain in range(3):
            store.append(sample(chain, text="x" * 10_000_000))
        store.write_points()  # imports what it needs
        tracemalloc.start()
        assert sum(len(sample.text) for sample in store.samples()) == 30_000_000
        store.write_points()
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 60_000_000  # a line, its bytes and the text of one chain or two at a time
    assert held < 10_000_000


def test_other_contents_take_the_place_of_the_same_chains(tmp_path):
    write(tmp_path)
    with Store(tmp_path, INFO) as store:
        store.replace(replace(chain, text=f"text {chain.chain}") for chain in store.samples())
        store.append(sample(3))
        assert [chain.text for chain in store.samples()] == ["text 0", "text 1", "text 2", sample(3).text]
        before = (tmp_path / results.SAMPLES).read_bytes()
        for others in ([sample(0)], [sample(chain) for chain in range(5)], [sample(c) for c in (1, 0, 2, 3)]):
            with pytest.raises(AssertionError):
                store.replace(others)
            assert (tmp_path / results.SAMPLES).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", '{"config": 3}', '{"schema": 99, "config": {}}'),
        '{"schema": 2, "config": {}, "widths": [-3]}',
        '{"schema": 1, "config": {"model": "mini"}, "tasks": "x"}',
    ],
)
def test_a_broken_description_is_refused(tmp_path, text):
    write(tmp_path)
    (tmp_path / results.RUN_FILE).write_text(text)
    with pytest.raises(ResultsError, match=r"run\.json"):
        results.read(tmp_path)
    with pytest.raises(ResultsError, match=r"run\.json"):
        Store(tmp_path, INFO).__enter__()


def test_folders_that_are_no_runs(tmp_path):
    with pytest.raises(ResultsError, match="no folder"):
        results.read(tmp_path / "none")
    with pytest.raises(ResultsError, match="holds no run"):
        results.read(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ResultsError, match="holds other files"):
        Store(tmp_path, INFO).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ResultsError, match="cannot write in"):
        Store(tmp_path / "notes.txt", INFO).__enter__()


def test_a_full_disk_loses_nothing(tmp_path):
    write(tmp_path, count=2)
    path = tmp_path / results.SAMPLES
    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Store(tmp_path, INFO) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))  # the write stops after ten bytes
        try:
            with pytest.raises(ResultsError, match="finished chains are kept"):
                store.append(sample(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == size  # the part of a line is gone again
    with Store(tmp_path, INFO) as store:
        store.append(sample(2))
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        try:
            with pytest.raises(ResultsError, match=r"cannot write .*points\.csv .*every chain is kept"):
                store.write_points()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert numbers(results.read(tmp_path)[0].samples) == [0, 1, 2]


def test_an_old_description_keeps_its_day_when_it_is_written_again(tmp_path):
    """Runs of earlier versions took the day of the file for the present, which their prompts may tell."""
    write(tmp_path)
    path = tmp_path / results.RUN_FILE
    os.utime(path, (1_700_000_000, 1_700_000_000))
    day = read_date(tmp_path)
    assert day == datetime.fromtimestamp(1_700_000_000)
    with Store(tmp_path, INFO) as store:
        store.add_batch_size(8)
    assert path.stat().st_mtime > 1_700_000_000
    assert read_date(tmp_path) == day
    with Store(tmp_path, INFO | {"weights": {"vanilla": "cd"}}):  # which adds them
        assert read_info(tmp_path)["weights"] == {"vanilla": "cd"}
    assert read_date(tmp_path) == day
    with Store(tmp_path / "new", INFO | {"date": "2026-02-03T04:05:06"}) as store:
        store.add_batch_size(8)
    assert read_info(tmp_path / "new")["date"] == "2026-02-03T04:05:06"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch, number):
    """Full disks are something else, and not every command that opens a run has --out."""
    write(tmp_path / "run")

    def refuse(path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("hyperscale.results.store.take_lock", refuse)
    with pytest.raises(ResultsError, match=r"cannot write in .*run \(.*\): copy it to where you may write, and name"):
        Store(tmp_path / "run", INFO).__enter__()
    with pytest.raises(ResultsError, match=r"cannot write in .*new \(.*\): choose another folder with --out"):
        Store(tmp_path / "new", INFO).__enter__()


def test_points_do_not_depend_on_the_order_of_the_samples(tmp_path):
    chains = [sample(c, problem=p, right=c % 2 == 0) for p in ("p", "q") for c in range(4)]
    for name, order in (("a", chains), ("b", chains[::-1])):
        with Store(tmp_path / name / "run", INFO) as store:
            for chain in order:
                store.append(chain)
            store.write_points()
    points = [(tmp_path / name / "run" / results.POINTS).read_bytes() for name in "ab"]
    assert points[0] == points[1]
    assert json.loads((tmp_path / "a" / "run" / results.RUN_FILE).read_text())["schema"] == results.SCHEMA
    assert points[0].startswith(
        b"run,model,method,engine,task,W,L,CR,realised_cr,n_problems,n_seeds,accuracy,accuracy_se,vote,"
    )


def test_a_repeated_line_is_one_chain_and_said_to_be(tmp_path):
    write(tmp_path)
    path = tmp_path / results.SAMPLES
    lines = path.read_bytes().splitlines(keepends=True)
    slower = format_line(replace(sample(1), seconds=99.0))  # generated twice: only the time differs
    path.write_bytes(b"".join([*lines, lines[0], slower]))
    (run,) = results.read(tmp_path)
    assert numbers(run.samples) == [0, 1, 2]
    assert run.notes == (f"{path} line 4 repeats line 1, and 1 more do: each chain counts once",)
    with Store(tmp_path, INFO) as store:
        assert (len(store), store.notes) == (3, list(run.notes))
        store.append(sample(3))
        store.replace(store.samples())
    assert numbers(results.read(tmp_path)[0].samples) == [0, 1, 2, 3]
    assert results.read(tmp_path)[0].notes == ()


@pytest.mark.parametrize("changes", [{"text": "another"}, {"answer": "8", "right": False}, {"tokens": 3}])
def test_two_lines_that_differ_on_a_chain_are_refused(tmp_path, changes):
    write(tmp_path)
    with (tmp_path / results.SAMPLES).open("ab") as file:
        file.write(format_line(sample(1, **changes)))
    with pytest.raises(ResultsError, match=r"line 4 is the chain of line 2 again .*mini_aime/p, vanilla.*chain 1"):
        results.read(tmp_path)
    with pytest.raises(ResultsError, match="line 4 is the chain of line 2 again"), Store(tmp_path, INFO):
        pass


def test_nesting_without_end_is_corrupt(tmp_path):
    write(tmp_path)
    for name in (results.SAMPLES, results.RUN_FILE):
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(b"[" * 100_000 + b"\n")
        with pytest.raises(ResultsError, match=r"corrupt|unreadable"):
            results.read(tmp_path)
        (tmp_path / name).write_bytes(before)
