"""Runs of lm-eval's tasks, generated and scored, are held against lm-eval's evaluator with this project's model."""

import json
from pathlib import Path

import architectures
import commandline
import pandas as pd
import pytest
import yaml

from hyperscale import tasks
from hyperscale.errors import TaskError
from hyperscale.kv.trace import dense_reads
from hyperscale.tasks.own import sources
from hyperscale.tasks.own.groups import find_groups

pytestmark = pytest.mark.e2e

ROWS = [
    {"q": f"Edges: n{i:02d}: n9{i}, n1{i}: n0{i}. Start n{i:02d}. Which can be reached?", "right": i % 3}
    | {"options": [f" n9{i}", f" n9{i} n1{i}", f" n0{i} n1{i} n5{i}"], "letters": [" A", " B", " C"]}
    for i in range(8)  # as many as a gate of some tasks needs at 90 %
]
CHOICE = {
    "task": "own_choice",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "rows.jsonl", "train": "rows.jsonl"}},
    "test_split": "test",
    "fewshot_split": "train",
    "num_fewshot": 2,
    "target_delimiter": "",
    "output_type": "multiple_choice",
    "doc_to_text": "{{q}}",
    "doc_to_choice": "options",
    "doc_to_target": "right",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
WORDS = {
    "task": "own_words",
    "output_type": "generate_until",
    "doc_to_target": "{{options[right]}}",
    "generation_kwargs": {"until": ["."], "max_gen_toks": 24, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
METHODS = {"vanilla": None, "dms": 4, "knorm": 2}


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    letters = CHOICE | {"task": "own_letters", "doc_to_choice": "letters"}
    words = {key: value for key, value in (CHOICE | WORDS).items() if key != "doc_to_choice"}
    text = {**words, "task": "own_text", "output_type": "loglikelihood", "metric_list": CHOICE["metric_list"]}
    del text["generation_kwargs"]
    for values in (CHOICE, letters, words, text):
        (folder / f"{values['task']}.yaml").write_text(yaml.safe_dump(values))
    return folder


def read(folder):
    lines = (folder / "samples.jsonl").read_text().splitlines()
    return {(s["method"], s["task"], s["problem"]): s for s in map(json.loads, lines)}


def evaluate(folder, method, names, model="mini", **more):
    """What lm-eval makes of the same files: each problem's record, by task and problem."""
    from lm_eval import evaluator
    from lm_eval.tasks import TaskManager

    from hyperscale.lm_eval import HyperscaleLM

    lm = HyperscaleLM(model=model, method=method, cr=METHODS[method], device="cpu", dtype="float32", batch_size=4)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results = evaluator.simple_evaluate(
        lm, tasks=names, task_manager=manager, log_samples=True, bootstrap_iters=100, **more
    )
    found = {}
    for name, samples in results["samples"].items():
        for sample in samples:
            found.setdefault((name, str(sample["doc_id"])), sample)  # of several filters the first
    return found


def compare(sample, theirs, metric):
    """One problem: what was read, what was chosen, and at which costs."""
    (whole,) = sample["cuts"]
    if "options" not in sample:
        shown = theirs["resps"][0][0]  # behind the mark of a thinking that was cut off
        assert sample["text"] == shown.removeprefix(sample.get("opened", "<think>"))
        assert whole["correct"] == bool(theirs["exact_match"])
        return
    assert [option["logprob"] for option in sample["options"]] == [float(r[0][0]) for r in theirs["resps"]]
    assert [option["greedy"] for option in sample["options"]] == [bool(r[0][1]) for r in theirs["resps"]]
    assert whole["correct"] == bool(theirs[metric])
    assert whole["kv_reads"] == sum(option["kv_reads"] for option in sample["options"])
    assert whole["peak_kv"] == max(option["peak_kv"] for option in sample["options"])
    for option in sample["options"]:
        full = dense_reads(option["prompt_tokens"], option["tokens"])
        assert option["kv_reads"] == full if sample["method"] == "vanilla" else option["kv_reads"] <= full


def test_problems_are_scored_as_under_lm_eval(run, folder, tmp_path, monkeypatch):
    """Generated and scored tasks, three methods, in one folder; it resumes, and everything reads it."""
    names = ["own_choice", "own_letters", "own_words", "own_text"]
    command = ["run", "--model", "mini", "--method", ",".join(METHODS), "--cr", "2,4", "--include", folder]
    command += ["--budget", "1x", "--predict", "closed", "--task", ",".join(names), "--chat-template", "none"]
    code, out, err = run(*command, "--out", "r")
    assert code == 0, err
    samples = (tmp_path / "r" / "samples.jsonl").read_text()
    points = pd.read_csv(tmp_path / "r" / "points.csv")
    assert set(points.loc[points.task != "own_words", "vote"]) == {"likelihood"}
    assert (points.W == 1).all()
    assert (points.loc[points.task == "own_letters", "kv_reads"] == 0).all()  # of one token no read is counted
    # A run that was killed between two problems, and in the middle of a line.
    lines = samples.splitlines(keepends=True)
    (tmp_path / "r" / "samples.jsonl").write_text("".join(lines[:7]) + lines[7][:100])
    code, _, err = run(*command, "--out", "r")
    assert code == 0, err
    costs = ["task", "method", "CR", "L", "accuracy", "kv_reads", "peak_kv", "realised_cr"]
    again = pd.read_csv(tmp_path / "r" / "points.csv")
    pd.testing.assert_frame_equal(again[costs], points[costs])
    assert run("gate", "r", "--write-baseline", "b", "--confidence", 90)[0] == 0
    against = ["gate", "r", "--baseline", "b", "--confidence", 90]
    for reader in (against, ["plot", "r"], ["report", "r"], ["score", "r"], ["show", "r"]):
        code, _, err = run(*reader)
        assert code == 0, (reader, err)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "r" / "points.csv")[costs], points[costs])
    assert run("export", "r", "--to", "lm-eval")[0] == 0
    file = next((tmp_path / "r").rglob("samples_own_choice*"))
    line = json.loads(file.read_text().splitlines()[0])
    assert len(line["resps"]) == len(line["arguments"]) == 3
    commandline.fails(run("run", *command[1:], "--vote", "best-of-n", "--task", "own_choice"), "nothing votes")
    # The chat template, with each example a turn of its own.
    chat = [*command[: command.index("--task")], "--task", "own_choice", "--out", "c"]
    assert run(*chat)[0] == 0
    assert run(*chat[:-1], "s", "--task-param", "own_choice.fewshot_as_multiturn=false")[0] == 0
    monkeypatch.chdir(folder)  # from where lm-eval reads the data
    stored = [json.loads(line) for line in samples.splitlines()]
    for method, cr in METHODS.items():
        for out, asked, more in (
            ("r", names, {}),
            ("c", ["own_choice"], {"apply_chat_template": True, "fewshot_as_multiturn": True}),
            ("s", ["own_choice"], {"apply_chat_template": True, "fewshot_as_multiturn": False}),
        ):
            theirs = evaluate(folder, method, asked, **more)
            if out != "r":
                stored = [json.loads(line) for line in (tmp_path / out / "samples.jsonl").read_text().splitlines()]
            ours = [s for s in stored if (s["method"], s["CR"]) == (method, cr or 1)]
            assert len(ours) == len(theirs) == len(asked) * len(ROWS)
            for sample in ours:
                compare(sample, theirs[sample["task"], sample["problem"]], "acc")
        stored = [json.loads(line) for line in samples.splitlines()]


GROUPS = {
    "_suite": {
        "group": "own_suite",
        "task": ["own_choice", "own_inner"],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
    },
    "inner": {
        "group": "own_inner",
        "task": ["own_letters", "own_text"],
        "aggregate_metric_list": {"metric": "acc", "weight_by_size": False},
    },
    "silent": {"group": "own_silent", "task": "own_choice"},
    "other": {"group": "own_other", "task": ["own_choice"], "aggregate_metric_list": [{"metric": "acc_norm"}]},
}


def test_means_of_groups_are_those_of_lm_eval(run, folder, tmp_path, monkeypatch):
    """Tasks of 8, 5 and 8 problems in a group that weighs them by size, two of them in one that weighs them alike."""
    from lm_eval import evaluator
    from lm_eval.tasks import TaskManager

    from hyperscale.lm_eval import HyperscaleLM

    for name, values in GROUPS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    letters = yaml.safe_load((folder / "own_letters.yaml").read_text())
    letters["dataset_kwargs"]["data_files"]["test"] = "five.jsonl"
    (folder / "own_letters.yaml").write_text(yaml.safe_dump(letters))
    (folder / "five.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:5]))
    command = ["run", "--model", "mini", "--method", ",".join(METHODS), "--cr", "2,4", "--include", folder]
    command += ["--budget", "all", "--predict", "closed", "--chat-template", "none"]
    code, out, err = run(*command, "--task", "own_suite", "--out", "r")
    assert code == 0, err
    assert "Means of groups of tasks" in out
    info = json.loads((tmp_path / "r" / "run.json").read_text())
    assert {name: group["weight_by_size"] for name, group in info["task_groups"].items()} == {
        "own_inner": False,
        "own_suite": True,
    }
    points = pd.read_csv(tmp_path / "r" / "points.csv")
    assert set(points.loc[points.n_tasks == 1, "task"]) == {"own_choice", "own_letters", "own_text"}
    means = points[points.n_tasks > 1]
    assert len(means) == 2 * (1 + 2 * 2)
    at_cr = means.method.map({method: cr or 1 for method, cr in METHODS.items()}) == means.CR
    means = means[at_cr].set_index(["task", "method"])
    assert run("export", "r", "--to", "lm-eval")[0] == 0
    exported = {path.parent.name: json.loads(path.read_text()) for path in (tmp_path / "r").rglob("results_*.json")}
    monkeypatch.chdir(folder)  # from where lm-eval reads the data
    for method, cr in METHODS.items():
        lm = HyperscaleLM(model="mini", method=method, cr=cr, device="cpu", dtype="float32", batch_size=4)
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        theirs = evaluator.simple_evaluate(lm, tasks=["own_suite"], task_manager=manager, bootstrap_iters=100)["groups"]
        (file,) = (values for name, values in exported.items() if f"_{method}-{cr or 1}x" in name)
        for name in ("own_suite", "own_inner"):
            mean, wanted = means.loc[(name, method)], theirs[name]
            assert mean.accuracy == pytest.approx(100 * wanted["acc,none"], abs=1e-9)
            assert mean.accuracy_se == pytest.approx(100 * wanted["acc_stderr,none"], abs=1e-9)
            assert mean.n_problems == wanted["sample_len"]
            label = f"W1-L{mean.L}"
            assert file["groups"][name][f"accuracy,{label}"] == pytest.approx(wanted["acc,none"], abs=1e-12)
            assert file["groups"][name]["sample_len"] == wanted["sample_len"]
        assert file["group_subtasks"]["own_suite"] == ["own_choice", "own_letters", "own_text"]
    monkeypatch.chdir(tmp_path)
    inner, plain = means.loc[("own_inner", "vanilla")], points[points.method == "vanilla"].set_index("task")
    both = plain.loc[["own_letters", "own_text"]]
    for cost in ("accuracy", "kv_reads", "peak_kv", "tokens"):
        assert inner[cost] == pytest.approx(both[cost].mean())
    weighted = (plain.n_problems * plain.kv_reads)[["own_choice", "own_letters", "own_text"]].sum() / 21
    assert means.loc[("own_suite", "vanilla")].kv_reads == pytest.approx(weighted)
    shown = json.loads(run("show", "r", "--json")[1])
    assert {row["task"] for row in shown["points"]} >= {"own_suite", "own_inner"}
    assert "own_suite" in run("show", "r")[1]
    assert run("report", "r")[0] == 0
    assert "mean of 3 tasks, weighted by their problems" in (tmp_path / "r" / "report.html").read_text()
    # Neither a group that says nothing of a mean, nor one whose metric is not that of its tasks, has one, as there.
    for name in ("own_silent", "own_other"):
        assert run(*command, "--method", "vanilla", "--task", name, "--out", name)[0] == 0
        assert (pd.read_csv(tmp_path / name / "points.csv").n_tasks == 1).all()
        assert "task_groups" not in json.loads((tmp_path / name / "run.json").read_text())
    # A task that is not done yet keeps the mean back: it would be of other tasks.
    kept = [line for line in (tmp_path / "r" / "samples.jsonl").read_text().splitlines() if '"own_text"' not in line]
    (tmp_path / "r" / "samples.jsonl").write_text("".join(f"{line}\n" for line in kept))
    assert {row["task"] for row in json.loads(run("show", "r", "--json")[1])["points"]} == {"own_choice", "own_letters"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": ["own_choice", "gone"]}, "the group g lists gone, which no folder of --include has"),
        ({"task": ["g"]}, "must list names of tasks and of other groups"),
        ({"task": [{"task": "own_choice"}]}, "must list names"),
        ({"task": ["own_choice"], "aggregate_metric_list": [{"metric": "acc", "aggregation": "median"}]}, "but mean"),
        ({"task": ["own_choice"], "aggregate_metric_list": "acc"}, "must hold a metric each"),
        ({"task": ["own_choice"], "aggregate_metric_list": [{"metric": "acc", "weight_by_size": 1}]}, "true or false"),
    ],
)
def test_groups_that_cannot_be_run_say_why(run, folder, values, message):
    (folder / "g.yaml").write_text(yaml.safe_dump({"group": "g", **values}))
    result = run("run", "--model", "mini", "--include", folder, "--task", "g", "--dry-run")
    commandline.fails(result, message)


GSM8K = [
    {"question": f"{i} cows and {i + 2} more. How many?", "answer": f"{i}+{i + 2}={2 * i + 2}\n#### {2 * i + 2}"}
    for i in range(8)
]
HELLASWAG = [
    {"activity_label": "Cooking", "ctx_a": "A man cuts an onion.", "ctx_b": f"he has {i}", "label": str(i % 4)}
    | {"endings": ["puts it in a pan.", "flies away [step].", "reads a newspaper to the onion.", "sleeps."]}
    for i in range(4)
]


def test_tasks_that_lm_eval_ships_run_by_name(run, tmp_path):
    """Its own files of GSM8K and HellaSwag, over data that lie here, in the model's chat template."""
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    for name, rows, splits in (("gsm8k", GSM8K, ("train", "test")), ("hs", HELLASWAG, ("train", "validation"))):
        (tmp_path / name).mkdir()
        for split in splits:
            (tmp_path / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = architectures.write(tmp_path / "llama", "llama")
    command = ["run", "--model", model, "--method", "vanilla,knorm", "--cr", "2", "--budget", "all", "--limit", "2"]
    command += ["--task", "lm_eval:gsm8k,lm_eval:hellaswag", "--length", "24", "--out", "r"]
    command += ["--system-prompt", "Be brief."]
    command += ["--data", "lm_eval:gsm8k=gsm8k", "--data", "lm_eval:hellaswag=hs"]
    code, _, err = run(*command, "--task-param", "lm_eval:hellaswag.metric=acc_norm")
    assert code == 0, err
    shipped = Path(lm_eval.tasks.__file__).parent
    chat = {"apply_chat_template": True, "system_instruction": "Be brief."}
    for method in ("vanilla", "knorm"):
        for name, folder, metric in (("gsm8k", "gsm8k", "exact_match"), ("hellaswag", "hs", "acc_norm")):
            splits = {path.stem: str(path) for path in (tmp_path / folder).iterdir()}
            changed = {**load_yaml(shipped / name / f"{name}.yaml"), "dataset_path": "json", "dataset_name": None}
            changed |= {"dataset_kwargs": {"data_files": splits}}
            more = {"gen_kwargs": {"max_gen_toks": 24}} if name == "gsm8k" else {}
            theirs = evaluate(shipped / name, method, [changed], model=str(model), limit=2, **chat, **more)
            assert len(theirs) == 2
            for (arm, task, problem), sample in read(tmp_path / "r").items():
                if (arm, task) == (method, f"lm_eval:{name}"):
                    compare(sample, theirs[name, problem], metric)
    # Whoever reads the results needs neither lm-eval nor its files.
    sources._SOURCES.clear()
    assert run("plot", "r")[0] == 0
    assert len(sources.declared()) == 2


def test_groups_and_mistakes(run, tmp_path):
    from hyperscale.tasks.own.lm_eval_names import declare

    names = declare("lm_eval:mmlu")
    assert len(names) == 57
    assert {tasks.load(name).strategy for name in names} == {"likelihood"}
    found = find_groups(dict.fromkeys(names, "acc"))
    assert {name: len(group["tasks"]) for name, group in found.items() if "mmlu" in name} == {
        **{"lm_eval:mmlu": 57, "lm_eval:mmlu_stem": 19, "lm_eval:mmlu_other": 13},
        **{"lm_eval:mmlu_social_sciences": 12, "lm_eval:mmlu_humanities": 13},
    }
    assert all(group["weight_by_size"] for group in found.values())
    # A folder for a group holds one for each of its tasks' data, where their files are not those of all.
    row = {"question": "What is smaller?", "choices": ["a cell", "a virus", "a leaf", "a cow"], "answer": 1}
    (tmp_path / "mmlu" / "virology").mkdir(parents=True)
    for split in ("dev", "test"):
        (tmp_path / "mmlu" / "virology" / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    (doc,) = tasks.load("lm_eval:mmlu_virology").docs(data=str(tmp_path / "mmlu"))
    assert [option.continuation for option in doc.options] == [" A", " B", " C", " D"]
    assert doc.target == ["1"]
    assert doc.prompt.startswith("The following are multiple choice questions (with answers) about virology.\n\n")
    with pytest.raises(TaskError, match=r"lm-eval cannot make the task"):
        tasks.load("lm_eval:mmlu_anatomy").docs(data=str(tmp_path / "mmlu"))
    for name, message in (
        ("lm_eval:hellswag", r"lm-eval has no task 'hellswag': did you mean 'hellaswag'"),
        ("lm_eval:mmlu", r"lm_eval:mmlu is a group: name one of its tasks"),
        ("lm_eval:wikitext", r"lm_eval:wikitext cannot be a task of a run .*run it under lm-eval"),
        ("lm_eval:squadv2", r"lm_eval:squadv2 is a class of its own in lm-eval"),
    ):
        with pytest.raises(TaskError, match=message):
            tasks.load(name)
    commandline.fails(run("run", "--task", "lm_eval:hellswag", "--dry-run"), "did you mean 'hellaswag'")
