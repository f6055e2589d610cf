"""Exports, read back by the tools that they are for: the same accuracies, costs, answers and texts as the run's."""

import json
from dataclasses import replace

import pytest
from commandline import caller, fails
from run_folders import write_run
from synthetic_samples import chains, forced_answer, sample

import hyperscale as hs
from hyperscale import tasks

PROBLEMS = tasks.load("mini_aime").docs(3)
FORCED = {L: forced_answer(L, "1") for L in (256, 512)}


def known(line, i):
    """A synthetic chain of a problem whose question may be shown."""
    doc = PROBLEMS[i]
    return replace(line, problem=doc.id, prompt_hash=tasks.prompt_hash(doc.prompt), text="x" * line.tokens)


VANILLA = [known(line, int(line.problem[1:])) for line in chains("vanilla", 1, problems=3, width=4)]
TOVA = [
    known(sample(f"p{i}", chain, "tova", 4.0, answer, L=512, tokens=tokens, forced=FORCED), i)
    for i in range(3)
    for chain, (answer, tokens) in enumerate([("1", 300), ("2", 400), ("1", 900)])
]
# A method that depends on L: the same chain index at two L is two chains.
PER_L = [
    known(sample(f"p{i}", chain, "rkv", 4.0, "1", L=L, tokens=200 + 100 * i, length_invariant=False), i)
    for i in range(3)
    for L in (256, 512)
    for chain in range(2)
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    return hs.load(write_run(folder / "run", VANILLA + TOVA + PER_L, date="2026-01-02T03:04:05"))


def point_of(results, method, W, L):
    rows = results.points.query(f"method == {method!r} and W == {W} and L == {L}")
    assert len(rows) == 1
    return rows.iloc[0]


def test_lm_eval_files_are_what_lm_evals_tools_read(results, tmp_path):
    from lm_eval import utils

    files = [str(path) for path in results.export("lm-eval", tmp_path)]
    assert sorted(utils.get_results_filenames(files) + utils.get_sample_results_filenames(files)) == sorted(files)
    assert len(files) == 6
    assert {utils.get_file_task_name(name.rpartition("/")[2]) for name in files if "/samples_" in name} == {"mini_aime"}
    path = tmp_path / "lm-eval" / "run" / "mini_vanilla-1x"
    (summary,) = path.glob("results_*.json")
    values = json.loads(summary.read_text())
    row = point_of(results, "vanilla", 4, 1024)
    found = values["results"]["mini_aime"]
    assert found["accuracy,W4-L1024"] == pytest.approx(row["accuracy"] / 100)
    assert found["kv_reads,W4-L1024"] == row["kv_reads"]
    assert values["n-samples"] == {"mini_aime": {"original": 200, "effective": 3}}
    table = [[cell.strip() for cell in line.split("|")[3:-1]] for line in utils.make_table(values).splitlines()]
    (shown,) = [cells for cells in table if cells[0] == "W4-L1024" and cells[2] == "accuracy"]
    assert shown[1:5] == ["0", "accuracy", "↑", f"{row['accuracy'] / 100:.4f}"]
    assert ["W4-L1024", "0", "kv_reads", "↓", f"{row['kv_reads']:.4f}", "", ""] in table
    lines = [json.loads(line) for line in next(path.glob("samples_*.jsonl")).read_text().splitlines()]
    assert [line["doc_id"] for line in lines if line["filter"] == "W4-L2048"] == [0, 1, 2]
    mean = sum(line["accuracy"] for line in lines) / 3
    assert mean == pytest.approx(point_of(results, "vanilla", 4, 2048)["accuracy"] / 100)
    assert lines[0]["doc"]["prompt"] == PROBLEMS[0].prompt
    assert lines[0]["resps"] == [[line.text for line in VANILLA if line.problem == PROBLEMS[0].id]]


def test_lm_eval_samples_have_forced_answers_and_each_l_of_methods_that_depend_on_it(results, tmp_path):
    results.export("lm-eval", tmp_path)
    folder = tmp_path / "lm-eval" / "run"
    (tova,) = (folder / "mini_tova-4x").glob("samples_*.jsonl")
    lines = [json.loads(line) for line in tova.read_text().splitlines()]
    assert [line["filtered_resps"] for line in lines] == [["1", "2", "1"]] * 3  # the last was made to answer
    assert [line["tokens"][2] for line in lines] == [512 + 6] * 3
    (rkv,) = (folder / "mini_rkv-4x").glob("samples_*.jsonl")
    lines = [json.loads(line) for line in rkv.read_text().splitlines()]
    assert [line["filter"] for line in lines] == ["W2-L256"] * 3 + ["W2-L512"] * 3
    assert all(len(line["filtered_resps"]) == 2 for line in lines)


def test_lm_eval_files_have_the_keys_that_lm_eval_writes(results, tmp_path, monkeypatch):
    """Held against an evaluation of lm-eval's own dummy model on the same task."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from lm_eval import evaluator
    from lm_eval.tasks import TaskManager
    from repository import ROOT

    manager = TaskManager(include_path=str(ROOT / "tasks"), include_defaults=False)
    real = evaluator.simple_evaluate(
        model="dummy",
        tasks=["mini_aime"],
        limit=1,
        task_manager=manager,
        log_samples=True,
        verbosity="ERROR",
        bootstrap_iters=100,
    )
    results.export("lm-eval", tmp_path)
    folder = tmp_path / "lm-eval" / "run" / "mini_vanilla-1x"
    ours = json.loads(next(folder.glob("results_*.json")).read_text())
    about_the_machine = {"pretty_env_info", "upper_git_hash", "lm_eval_version"}  # where lm-eval ran
    assert set(real) - set(ours) == {"samples", *about_the_machine}
    task = set(real["configs"]["mini_aime"])
    assert set(ours["configs"]["mini_aime"]) <= task | {"repeats", "metadata"}
    fixed = {name for name in real["results"]["mini_aime"] if "," not in name}
    assert fixed == {name for name in ours["results"]["mini_aime"] if "," not in name}
    line = json.loads(next(folder.glob("samples_*.jsonl")).read_text().splitlines()[0])
    assert set(real["samples"]["mini_aime"][0]) <= set(line)


def test_inspect_logs_are_read_by_inspect(results, tmp_path):
    pytest.importorskip("inspect_ai")
    from inspect_ai.analysis import evals_df, samples_df
    from inspect_ai.log import read_eval_log

    paths = results.export("inspect", tmp_path)
    assert [path.name.split("_", 1)[1] for path in paths] == [
        f"mini_aime_{name}.eval" for name in ("vanilla-1x", "tova-4x", "rkv-4x_L256", "rkv-4x_L512")
    ]
    log = read_eval_log(str(paths[0]))
    assert (log.status, log.eval.task, log.eval.model_args["method"]) == ("success", "mini_aime", "vanilla")
    assert {(each.id, each.epoch) for each in log.samples} == {(doc.id, i) for doc in PROBLEMS for i in (1, 2, 3, 4)}
    first = next(each for each in log.samples if each.id == PROBLEMS[0].id and each.epoch == 1)
    chain = VANILLA[0]
    assert first.input == PROBLEMS[0].prompt
    assert first.output.completion == chain.text
    assert first.output.usage.output_tokens == chain.tokens
    assert first.scores["integer"].value == ("C" if chain.whole.correct else "I")
    assert first.metadata["kv_reads"] == chain.whole.kv_reads
    # As a frame, the way that inspect's users read logs.
    frame = evals_df(str(tmp_path / "inspect"), quiet=True)
    row = point_of(results, "vanilla", 4, 1024)
    column = "score_integer_W4-L1024"
    values = frame[frame["log"].str.contains("vanilla")].iloc[0]
    assert values[f"{column}_accuracy"] == pytest.approx(row["accuracy"] / 100)
    assert values[f"{column}_kv_reads"] == pytest.approx(row["kv_reads"])
    assert len(samples_df(str(tmp_path / "inspect"), quiet=True)) == len(VANILLA + TOVA + PER_L)


def test_tensorboard_events_are_read_by_tensorboard(results, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    results.export("tensorboard", tmp_path)
    results.export("tensorboard", tmp_path)  # in place of the first
    folder = tmp_path / "tensorboard" / "run"
    assert len(list((folder / "vanilla").iterdir())) == 1
    events = EventAccumulator(str(folder / "vanilla"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("mini_aime/accuracy by kv_reads")]
    frontier = results.frontier("kv_reads").query("method == 'vanilla'")
    assert [step for step, _ in found] == [round(cost) for cost in frontier["kv_reads"]]
    assert [value for _, value in found] == pytest.approx(list(frontier["accuracy"]), rel=1e-6)
    assert "mini_aime/accuracy by seconds" not in events.Tags()["scalars"]
    steps = [event.step for event in events.Scalars("mini_aime/accuracy by milliseconds")]
    assert steps == [round(1000 * cost) for cost in results.frontier("seconds").query("method == 'vanilla'")["seconds"]]
    assert len(set(steps)) == len(steps)
    events = EventAccumulator(str(folder / "tova-4x"))
    events.Reload()
    (event,) = [each for each in events.Scalars("mini_aime/W=1/accuracy") if each.step == 512]
    assert event.value == pytest.approx(point_of(results, "tova", 1, 512)["accuracy"], rel=1e-6)


def test_wandb_runs_are_kept_offline(results, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (folder,) = results.export("wandb", tmp_path)
    assert folder.name.startswith("offline-run-")
    assert folder.is_relative_to(tmp_path)
    wandb.teardown()  # ends its service, which has then written all
    (record,) = folder.glob("*.wandb")
    written = record.read_bytes()
    for text in (b"best accuracy/mini_aime/tova", b"accuracy by kv_reads/mini_aime/vanilla", b"chains"):
        assert text in written
    assert b"x" * 100 not in written  # no texts of chains
    (points,) = folder.rglob("points_*.table.json")
    table = json.loads(points.read_text())
    place = table["columns"].index("accuracy")
    shown = [row[place] for row in table["data"]]
    assert shown == pytest.approx(list(results.points["accuracy"]), nan_ok=True)


def test_mistakes_are_told_before_anything_is_written(results, tmp_path, monkeypatch, capsys):
    call = caller(monkeypatch, capsys, tmp_path)
    fails(call("export", results.folder, "--to", "excel"), "no format 'excel'", "lm-eval, inspect, tensorboard, wandb")
    fails(call("export", tmp_path / "nowhere"), "no folder")
    (tmp_path / "file").write_text("")
    fails(call("export", results.folder, "--out", tmp_path / "file"), "cannot write", "--out")
    empty = write_run(tmp_path / "empty", [], planned={"vanilla": 4}, points=False)
    fails(call("export", empty), "no finished chain")
    monkeypatch.setattr("hyperscale.export.write.find_spec", lambda name: None if name == "inspect_ai" else name)
    advice = "pip install 'hyperscale-kv[inspect]'"
    fails(call("export", results.folder, "--to", "inspect"), "inspect needs inspect_ai", advice)
    fails(call("export", "nowhere", "--to", "inspect"), "no folder nowhere")


def test_the_command_writes_into_the_folder_and_says_what(results, tmp_path, monkeypatch, capsys):
    code, out, err = caller(monkeypatch, capsys, tmp_path)("export", results.folder)
    assert (code, err) == (0, "")
    written = [line.removeprefix("wrote ") for line in out.splitlines()]
    assert len(written) == 6
    assert all(line.startswith(str(results.folder / "export" / "lm-eval" / "run")) for line in written)
    assert len(hs.load(results.folder).runs) == 1  # files of an export are no runs
