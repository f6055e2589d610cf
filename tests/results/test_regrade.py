import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import checkpoints
import commandline
import pandas as pd
import public_data_rows
import pytest
from synthetic_samples import sample

from hyperscale import results, tasks
from hyperscale.errors import ResultsError, SandboxError
from hyperscale.results import grading, regrade
from hyperscale.results.manifest import POINTS, RUN_FILE, SAMPLES, read_info
from hyperscale.results.points import table
from hyperscale.results.store import Store
from hyperscale.run import execute, prepare
from hyperscale.run.config import load
from hyperscale.run.observer import RunObserver
from hyperscale.scoring.graders.integer import IntegerGrader
from hyperscale.scoring.sandbox import choose, pool

MAIN = "from hyperscale.cli.main import main; main()"
INFO = {"config": {"model": "mini", "limit": 4}, "tasks": {"mini_aime": "1.0", "mini_lcb": "1.0"}}


def answer(task, doc, right):
    """Text of a chain that thinks, then answers rightly or not."""
    if task == "mini_aime":
        return rf"so</think>\boxed{{{int(doc.target) + (not right)}}}"
    table = {str(test["input"]): test["output"] for test in doc.target} if right else {}
    return f"so</think>\n```python\ndef f(x):\n    return {table}.get(str(x))\n```\n"


def write(folder, names=("mini_aime", "mini_lcb")):
    """A run whose stored answers and verdicts are all nonsense; every second chain is right."""
    with Store(folder, INFO) as store:
        for name in names:
            for i, doc in enumerate(tasks.load(name).docs(4)):
                for chain in range(2):
                    text = answer(name, doc, (i + chain) % 2)
                    line = sample(doc.id, chain, tokens=300, answer="?", right=False, task=name, text=text)
                    first, whole = line.cuts
                    cuts = (replace(first, chars=12), replace(whole, chars=len(text)))
                    store.append(replace(line, prompt_hash=tasks.prompt_hash(doc.prompt), cuts=cuts))
        store.write_points()


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graded") / "run"
    write(folder)
    return folder, regrade.regrade(folder)


def test_answers_and_verdicts_come_from_the_text(graded):
    folder, done = graded
    (run,) = results.read(folder)
    assert (done.chains, done.answers, done.verdicts) == (16, 16, 8)
    for line in run.samples:
        doc = next(doc for doc in tasks.load(line.task).docs(4) if doc.id == line.problem)
        right = (int(tasks.load(line.task).docs(4).index(doc)) + line.chain) % 2 == 1
        first, whole = line.cuts
        assert (first.correct, whole.correct) == (False, right)
        assert first.answer is None  # the first 12 characters hold no answer
        assert whole.answer is not None


def test_points_are_rebuilt(graded):
    folder, done = graded
    rows = pd.read_csv(folder / POINTS)
    pd.testing.assert_frame_equal(rows, table(done.points))
    assert set(rows[(rows.W == 1) & (rows.L == 2048)].accuracy) == {50}


def test_what_else_was_stored_stays(graded, tmp_path):
    folder, _ = graded
    write(tmp_path / "run")
    for before, after in zip(results.read(tmp_path / "run")[0].samples, results.read(folder)[0].samples, strict=True):
        answers, verdicts = grading.answers(before), grading.verdicts(before)
        assert grading.with_verdicts(after, answers, verdicts) == before


def test_grading_twice_changes_nothing(graded):
    folder, _ = graded
    before = (folder / SAMPLES).read_bytes(), (folder / POINTS).read_bytes(), (folder / RUN_FILE).read_bytes()
    done = regrade.regrade(folder)
    assert (done.answers, done.verdicts) == (0, 0)
    assert before == ((folder / SAMPLES).read_bytes(), (folder / POINTS).read_bytes(), (folder / RUN_FILE).read_bytes())


def test_versions_become_those_of_the_graders_used(tmp_path, monkeypatch):
    write(tmp_path, ["mini_aime"])
    info = json.loads((tmp_path / RUN_FILE).read_text())
    info["tasks"]["mini_aime"] = "0.9"
    (tmp_path / RUN_FILE).write_text(json.dumps(info))
    regrade.regrade(tmp_path)
    assert read_info(tmp_path)["tasks"] == INFO["tasks"]
    assert {line.task_version for line in results.read(tmp_path)[0].samples} == {"1.0"}
    with Store(tmp_path, INFO) as store:  # a resume finds its own run, and can append to it
        store.append(sample("another"))
    assert len(results.read(tmp_path)[0].samples) == 9


def test_a_failure_on_the_way_leaves_everything_as_it_was(tmp_path, monkeypatch):
    write(tmp_path, ["mini_aime"])
    before = (tmp_path / SAMPLES).read_bytes()
    monkeypatch.setattr(IntegerGrader, "correct", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        regrade.regrade(tmp_path)
    assert (tmp_path / SAMPLES).read_bytes() == before


def test_a_full_disk_keeps_the_old_verdicts(tmp_path, monkeypatch):
    write(tmp_path, ["mini_aime"])
    before = (tmp_path / SAMPLES).read_bytes()
    with Store(tmp_path, INFO) as store:
        monkeypatch.setattr(
            "hyperscale.results.store.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space"))
        )
        with pytest.raises(ResultsError, match="the old verdicts are kept"):
            store.replace(store.samples())
    assert (tmp_path / SAMPLES).read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]


def test_a_run_in_use_is_refused(tmp_path):
    write(tmp_path, ["mini_aime"])
    with Store(tmp_path, INFO), pytest.raises(ResultsError, match="another process is writing"):
        regrade.regrade(tmp_path)


def test_problems_that_are_not_those_of_the_chains_are_refused(tmp_path):
    write(tmp_path, ["mini_aime"])
    path, lines = tmp_path / SAMPLES, (tmp_path / SAMPLES).read_text().splitlines(keepends=True)
    first = json.loads(lines[0])
    for change, message in (
        ({"prompt_hash": "0" * 16}, "prompt of mini_aime/.* has changed"),
        ({"problem": "x"}, "lacks today"),
    ):
        path.write_text(json.dumps(first | change) + "\n" + "".join(lines[1:]))
        before = path.read_bytes()
        with pytest.raises(ResultsError, match=message):
            regrade.regrade(tmp_path)
        assert path.read_bytes() == before


@pytest.mark.e2e
def test_the_command(tmp_path):
    write(tmp_path / "runs" / "a", ["mini_aime"])
    write(tmp_path / "runs" / "b", ["mini_aime"])

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-c", MAIN, "score", *arguments], capture_output=True, text=True, check=False
        )

    done = run(str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("graded 8 chains; 8 have another answer than before, 4 another verdict") == 2
    (tmp_path / "empty").mkdir()
    for folder, text in (("missing", "no folder"), ("empty", "holds no run")):
        done = run(str(tmp_path / folder))
        assert (done.returncode, done.stdout) == (2, "")
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "missing").exists()


@pytest.mark.e2e
def test_a_real_run_is_graded_as_it_was_and_goes_on(tmp_path):
    def run_again(limit):
        asked = load.make_config(
            {"model": str(weights), "methods": ["vanilla"], "tasks": ["mini_aime", "mini_gpqa"], "limit": limit}
            | {"budget": "0.2x", "grid": "mini"}
        )
        return execute.execute_run(prepare.prepare_run(asked, lambda _: None), tmp_path / "run", RunObserver())

    weights = checkpoints.write(tmp_path / "weights")
    run_again(2)
    files = [tmp_path / "run" / name for name in (RUN_FILE, SAMPLES, POINTS)]
    before = [file.read_bytes() for file in files]
    done = regrade.regrade(tmp_path / "run")
    assert done.chains > 4
    assert (done.answers, done.verdicts) == (0, 0)
    assert [file.read_bytes() for file in files] == before
    run_again(2)  # nothing is left to do
    assert [file.read_bytes() for file in files] == before


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path):
    old, new = tmp_path / "old" / "run", tmp_path / "new" / "run"
    write(old, ["mini_aime"])
    shutil.copytree(old, new)
    regrade.regrade(new)
    whole = {(folder / SAMPLES).read_bytes() for folder in (old, new)}
    assert len(whole) == 2
    for i in range(8):
        folder = tmp_path / str(i) / "run"
        shutil.copytree(old, folder)
        process = subprocess.Popen([sys.executable, "-c", MAIN, "score", str(folder)], stdout=subprocess.DEVNULL)
        try:
            process.wait(timeout=0.3 * (i + 1))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert (folder / SAMPLES).read_bytes() in whole


def test_data_that_have_moved_are_named(tmp_path, monkeypatch, capsys):
    docs = [{"id": doc.id, "prompt": doc.prompt, "target": doc.target} for doc in tasks.load("mini_aime").docs(4)]
    data = public_data_rows.write(tmp_path / "aime.jsonl", docs)
    write(tmp_path / "run", ["mini_aime"])
    info = json.loads((tmp_path / "run" / RUN_FILE).read_text())
    (tmp_path / "run" / RUN_FILE).write_text(json.dumps(info | {"data": {"mini_aime": str(data)}}))
    moved = data.rename(tmp_path / "moved.jsonl")

    call = commandline.caller(monkeypatch, capsys, tmp_path)
    for arguments, text in (((), "no file or folder"), (("--data", f"aime24={moved}"), "'aime24', which is no task")):
        code, _, err = call("score", "run", *arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert text in err
    for given in (moved, f"mini_aime={moved}"):
        assert call("score", "run", "--data", given)[::2] == (0, "")
    assert {line.whole.correct for line in results.read(tmp_path / "run")[0].samples} == {True, False}


@pytest.mark.parametrize("contents", [None, b"", b'{"schema":2,"mod'])
@pytest.mark.parametrize("options", [(), ("--vote", "mean@k")])
def test_a_run_without_chains_keeps_its_points(graded, tmp_path, monkeypatch, capsys, contents, options):
    folder = tmp_path / "run"
    shutil.copytree(graded[0], folder)
    (folder / SAMPLES).unlink()
    if contents is not None:
        (folder / SAMPLES).write_bytes(contents)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}
    call = commandline.caller(monkeypatch, capsys, tmp_path)
    commandline.fails(call("score", folder, *options), SAMPLES, "nothing to score")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"} == before


@pytest.mark.parametrize(("models", "trusted"), [(["mini"], True), (["mini", "owner/other"], False), (["else"], False)])
def test_programs_of_other_models_do_not_run_guarded(tmp_path, monkeypatch, models, trusted):
    """Whose they are stands in the samples; a machine without namespaces then grades none but the built-in model's."""
    write(tmp_path / "run", ["mini_lcb"])
    with Store(tmp_path / "run", INFO) as store:
        lines = [replace(line, model=models[i % len(models)]) for i, line in enumerate(store.samples())]
        store.replace(iter(lines))
    monkeypatch.setattr(pool, "_policy", ("auto", False))
    monkeypatch.setattr(choose, "find_fault", lambda level: "not installed" if level in choose.STRONG else None)
    if trusted:
        assert regrade.regrade(tmp_path / "run").chains == len(lines)
    else:
        with pytest.raises(SandboxError, match="bwrap: not installed"):
            regrade.regrade(tmp_path / "run")
