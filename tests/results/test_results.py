import json
import resource

import pytest

from hyperscale import results
from hyperscale.errors import ResultsError
from hyperscale.results.store import Store

INFO = {"config": {"model": "mini", "limit": 3}, "tasks": {"mini_aime": "1"}, "checkpoints": {"vanilla": "ab"}}


def sample(chain=0, **changes):
    base = {
        **{
            "run": "r",
            "model": "m",
            "method": "vanilla",
            "params": {},
            "CR": 1.0,
            "engine": "torch",
            "task": "mini_aime",
        },
        **{
            "problem": "p",
            "seed": 0,
            "chain": chain,
            "max_new_tokens": 256,
            "prompt_tokens": 3,
            "tokens": 2,
            "seconds": 1.0,
            "finish": "stop",
        },
        **{"lengths": [2], "kv_reads": [4.0], "peak_kv": [4.0], "kv_entry_bytes": 8, "chars": [1]},
        **{"answers": ["7"], "correct": [True], "text": "é7\u2028\n"},
    }
    return base | changes


def write(folder, count=3):
    with Store(folder, INFO) as store:
        for chain in range(count):
            store.append(sample(chain))


@pytest.mark.parametrize("value", [None, "x", [], {}, -1, [None, None], float("nan")])
@pytest.mark.parametrize("name", ["CR", "seed", "max_new_tokens", "tokens", "lengths", "kv_reads", "correct"])
def test_a_line_with_a_field_of_another_kind_is_corrupt(tmp_path, name, value):
    write(tmp_path)
    with (tmp_path / results.SAMPLES).open("a") as file:
        file.write(json.dumps({"schema": results.SCHEMA, **sample(3, **{name: value})}) + "\n")
    with pytest.raises(ResultsError, match="line 4 is corrupt"):
        results.read(tmp_path)


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "run")
    (run,) = results.read(tmp_path)
    assert [s["chain"] for s in run.samples] == [0, 1, 2]
    assert run.samples[0] == {"schema": results.SCHEMA, **sample(0, run="run")}
    assert run.info["config"] == INFO["config"]
    assert results.read(tmp_path / "run")[0].samples == run.samples


def test_a_chain_is_stored_once(tmp_path):
    write(tmp_path)
    with Store(tmp_path, INFO) as store:
        assert results.key(sample(1)) in store
        assert results.key(sample(3)) not in store
        store.append(sample(1, text="another"))
    assert len(results.read(tmp_path)[0].samples) == 3


@pytest.mark.parametrize(
    "change",
    [{"task": "x"}, {"problem": "q"}, {"method": "dms"}, {"CR": 8.0}, {"seed": 1}, {"chain": 9}],
)
def test_chains_that_differ_in_the_key_are_kept_apart(tmp_path, change):
    with Store(tmp_path, INFO) as store:
        store.append(sample(0))
        store.append(sample(0) | change)
        assert len(store.samples) == 2


def test_the_length_is_part_of_the_key_only_where_the_rule_depends_on_it():
    assert results.key(sample(0)) == results.key(sample(0, max_new_tokens=512))
    fixed = {"length_invariant": False}
    assert results.key(sample(0, **fixed)) != results.key(sample(0, max_new_tokens=512, **fixed))


@pytest.mark.parametrize("keep", [1, 20, -1])
def test_an_unfinished_last_line_is_dropped_and_only_that_chain_is_missing(tmp_path, keep):
    write(tmp_path)
    path = tmp_path / results.SAMPLES
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:keep])
    assert len(results.read(tmp_path)[0].samples) == 2
    with Store(tmp_path, INFO) as store:
        assert [s["chain"] for s in store.samples] == [0, 1]
        assert path.read_bytes() == b"".join(lines[:2])
        store.append(sample(2))
    assert path.read_bytes() == b"".join(lines)


@pytest.mark.parametrize("bad", [b"{oops\n", b"\n", b"[]\n", b"\xff\xfe\n", b'{"schema": 1}\n', b"\x00\x00\n"])
def test_any_other_bad_line_is_an_error_that_names_it(tmp_path, bad):
    write(tmp_path)
    path = tmp_path / results.SAMPLES
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + bad + lines[2])
    before = path.read_bytes()
    for use in (lambda: results.read(tmp_path), lambda: Store(tmp_path, INFO).__enter__()):
        with pytest.raises(ResultsError, match=r"samples\.jsonl line 2 is corrupt: delete that line"):
            use()
    assert path.read_bytes() == before
    write(tmp_path / "free")  # the failed attempts gave their lock back
    path.write_bytes(lines[0] + lines[2])
    with Store(tmp_path, INFO) as store:
        assert [s["chain"] for s in store.samples] == [0, 2]


def test_another_schema_is_refused(tmp_path):
    write(tmp_path)
    path = tmp_path / results.SAMPLES
    path.write_text(path.read_text().replace('"schema":1', '"schema":99'))
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


def test_a_renamed_folder_holds_one_run(tmp_path):
    write(tmp_path / "old", count=1)
    (tmp_path / "old").rename(tmp_path / "new")
    with Store(tmp_path / "new", INFO) as store:
        store.append(sample(1, run="new"))
    (run,) = results.read(tmp_path)
    assert [s["run"] for s in run.samples] == ["new", "new"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", '{"config": 3}', '{"schema": 99, "config": {}}'),
        '{"schema": 1, "config": {"model": "mini"}, "tasks": "x"}',
    ],
)
def test_a_broken_description_is_refused(tmp_path, text):
    write(tmp_path)
    (tmp_path / results.RUN).write_text(text)
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
    assert [s["chain"] for s in results.read(tmp_path)[0].samples] == [0, 1, 2]


def test_points_do_not_depend_on_the_order_of_the_samples(tmp_path):
    chains = [sample(c, problem=p, correct=[c % 2 == 0]) for p in ("p", "q") for c in range(4)]
    for name, order in (("a", chains), ("b", chains[::-1])):
        with Store(tmp_path / name, INFO) as store:
            for chain in order:
                store.append(chain)
            store.write_points()
    points = [(tmp_path / name / results.POINTS).read_bytes() for name in "ab"]
    assert points[0] == points[1]
    assert json.loads((tmp_path / "a" / results.RUN).read_text())["schema"] == results.SCHEMA
    assert points[0].startswith(
        b"run,model,method,engine,task,W,L,CR,realised_cr,n_problems,n_seeds,accuracy,accuracy_se,vote,"
    )
