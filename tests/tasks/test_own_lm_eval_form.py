"""Task files in lm-eval's own form: the same prompts, chains and verdicts as under lm-eval, and what is refused."""

import json
import pickle
import re
import shutil
import sys
from pathlib import Path

import architectures
import commandline
import pandas as pd
import pytest
import yaml

from hyperscale import tasks
from hyperscale.errors import TaskError
from hyperscale.scoring.graders.lm_eval_match import LmEvalGrader
from hyperscale.tasks.own import sources
from hyperscale.tasks.own_check import check_file

RIVERS = Path(__file__).parents[2] / "examples" / "tasks" / "rivers.yaml"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(RIVERS.parent, tmp_path / "tasks")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return architectures.write(tmp_path_factory.mktemp("model") / "llama", "llama")


@pytest.fixture(scope="module")
def lm_eval_task():
    from lm_eval.api.task import ConfigurableTask

    config = tasks.load(str(RIVERS)).origin.config
    files = {split: str(RIVERS.parent / name) for split, name in config["dataset_kwargs"]["data_files"].items()}
    return ConfigurableTask(config={**config, "dataset_kwargs": {"data_files": files}})


def write(folder, name="own.yaml", drop=(), **changes):
    """The example with some keys changed."""
    values = yaml.load((folder / "rivers.yaml").read_text(), sources.task_loader()) | changes
    path = folder / name
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if key not in drop}))
    return path


def test_chains_and_verdicts_are_those_of_lm_eval(run, checkpoint, folder, tmp_path, monkeypatch):
    """The same file, once in a run and once under lm-eval's evaluator with this project's model."""
    from lm_eval import evaluator
    from lm_eval.tasks import TaskManager

    from hyperscale.lm_eval import HyperscaleLM

    # Where a byte is drawn that ends the answer, and one that is right, is up to a random model: any text counts.
    path = write(folder, "own.yaml", task="own", filter_list=[{"name": "any", "filter": [{"function": "take_first"}]}])
    command = ["--model", checkpoint, "--method", "vanilla", "--chat-template", "none", "--budget", "1x"]
    code, _, err = run("run", *command, "--task", path, "--out", "r")
    assert code == 0, err
    samples = [json.loads(line) for line in (tmp_path / "r" / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 5  # greedy: one chain each
    monkeypatch.chdir(folder)  # from where lm-eval reads the data
    model = HyperscaleLM(model=str(checkpoint), method="vanilla", dtype="float32")
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results = evaluator.simple_evaluate(model, tasks=["own"], task_manager=manager, log_samples=True)
    theirs = {str(sample["doc_id"]): sample for sample in results["samples"]["own"]}
    for sample in samples:
        other = theirs[sample["problem"]]
        assert sample["text"] == other["resps"][0][0]
        assert sample["cuts"][-1]["correct"] == bool(other["exact_match"])


PATTERN = {"function": "regex", "regex_pattern": r"(-?[$0-9.,]{2,})|(-?[0-9]+)", "group_select": -1}
PIPELINES = [
    [{"function": "take_first"}],
    [PATTERN, {"function": "take_first"}],
    [PATTERN],
    [{"function": "lowercase"}, {"function": "remove_whitespace"}, {"function": "take_first"}],
    None,  # the example's own
]
TEXTS = [
    "North Sea",
    " the North Sea.",
    "north  sea",
    "NORTH SEA",
    "It is 12, no, 1,300.",
    "1300",
    "Black Sea",
    "x",
    "-",
]
OPTIONS = [{}, {"ignore_case": True, "ignore_punctuation": True}, {"regexes_to_ignore": [",", r"\.$", " Sea"]}]


def test_answers_and_verdicts_are_those_of_lm_eval_s_filters_and_metric(lm_eval_task):
    from lm_eval.api.instance import Instance
    from lm_eval.filters import build_filter_ensemble

    right = 0
    steps = yaml.safe_load(RIVERS.read_text())["filter_list"][0]["filter"]
    for pipeline in PIPELINES:
        parts = [
            (step["function"], {key: value for key, value in step.items() if key != "function"})
            for step in pipeline or steps
        ]
        for options in OPTIONS:
            grader = LmEvalGrader(parts, options)
            for text in TEXTS:
                for target in ("North Sea", "1,300.", "1300", ["x", "northsea"]):
                    instance = Instance("generate_until", {}, ("", {}), 0)
                    instance.resps = [text]
                    build_filter_ensemble("f", parts).apply([instance])
                    found = instance.filtered_resps["f"]
                    found = found[0] if isinstance(found, list) else found
                    lm_eval_task._metric_fn_kwargs["exact_match"] = options
                    lm_eval_task.multiple_target = len(target) if isinstance(target, list) else 0
                    lm_eval_task.config.doc_to_target = lambda _, target=target: target
                    theirs = lm_eval_task.process_results({}, [found])["exact_match"]
                    answer = grader.extract(text)
                    assert (answer or "[invalid]") == found
                    assert (answer is not None and grader.correct(answer, target)) == bool(theirs)
                    right += bool(theirs)
    assert right > 20


def test_an_answer_begins_after_the_thinking():
    grader = LmEvalGrader([("take_first", {})], {})
    assert grader.extract("<think>North Sea") is None
    assert grader.extract("<think>a</think>North Sea") == "North Sea"


def test_fewer_matches_than_are_counted_off_are_no_answer():
    grader = LmEvalGrader([("regex", {"regex_pattern": r"\d+", "group_select": 1}), ("take_first", {})], {})
    assert [grader.extract(text) for text in ("1 2", "1", "")] == ["2", None, None]


def test_a_text_that_says_what_stands_for_nothing_answers():
    steps = [("regex", {"regex_pattern": r"#### (\d+)", "fallback": "0"}), ("lowercase", {}), ("take_first", {})]
    grader = LmEvalGrader(steps, {})
    assert [grader.extract(text) for text in ("#### 0", "#### 7", "0")] == ["0", "7", None]
    assert grader.correct("0", "0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"process_results": "m.f"}, r"line \d+: process_results has no place here: grade with a function"),
        ({"custom_dataset": "m.f"}, r"custom_dataset has no place here: write the rows to a file"),
        ({"doc_to_image": "image"}, r"doc_to_image has no place here: models here read text alone"),
        ({"output_type": "multiple_choice"}, r"metric_list has exact_match, and none of acc"),
        ({"output_type": "loglikelihood_rolling"}, r"output_type is the likelihood of whole texts: measure it with"),
        ({"repeats": 8}, r"line \d+: repeats must be 1, got 8: W chains of a problem take its place"),
        ({"metric_list": [{"metric": "bleu"}]}, r"line \d+: metric_list.0.metric must be 'exact_match'.*got 'bleu'"),
        ({"metric_list": [{"metric": "acc"}]}, r"metric_list has acc, which is for likelihood"),
        ({"generation_kwargs": {"top_p": 0.9}}, r"line \d+: generation_kwargs.top_p is a setting of the run"),
        ({"filter_list": [{"name": "a", "filter": [{"function": "map"}]}]}, r"filter.0.function must be .*'map'"),
        (
            {"filter_list": [{"name": "a", "filter": [{"function": "regex", "regex_pattern": "("}]}]},
            r"line \d+: filter_list.0.filter.0.regex_pattern is no regular expression",
        ),
        ({"grader": "math"}, r"has grader beside filter_list or metric_list"),
        ({"filter": "strict"}, r"has filter 'strict', which is none of filter_list \(name\)"),
        ({"doc_to_txt": "x"}, r"line \d+: doc_to_txt is unknown: did you mean 'doc_to_text'"),
        ({"include": "none.yaml"}, r"no task file .*none.yaml"),
        ({"include": "own.yaml"}, r"include: own.yaml includes this file again"),
        ({"doc_to_text": "River {{rivr}}"}, r"doc_to_text names 'rivr', which is no field of the data"),
        ({"doc_to_target": "{{see}}"}, r"doc_to_target names 'see', which is no field of the data"),
        ({"test_split": "tests"}, r"lm-eval cannot make the task"),
        ({"dataset_kwargs": {"data_files": {"test": "none.jsonl"}}}, r"line \d+: dataset_path: .*none.jsonl"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_is_not_plain_is_refused_with_its_key_and_what_to_do(folder, run, changes, message):
    path = write(folder, **{"task": "own", **changes})
    report = check_file(path)
    assert any(re.search(message, mistake) for mistake in report.mistakes), report.text
    command = ["run", "--model", "mini", "--task", path, "--dry-run"]
    commandline.fails(run(*command), "own.yaml" if "include" not in changes else "")


def test_functions_included_files_and_columns_of_csv(folder):
    """What lm-eval's form allows beside templates; another module makes another version."""
    (folder / "helpers.py").write_text(
        "def text(doc):\n    return f\"{doc['q']}?\"\n\n"
        "def keep(data):\n    return data.filter(lambda doc: doc['n'] > 1)\n"
    )
    pd.DataFrame({"q": ["a", "b", "c"], "n": [1, 2, 3], "right": [0, 1, 0]}).to_csv(folder / "data.csv", index=False)
    (folder / "_base_yaml").write_text("dataset_path: csv\ntest_split: test\ndoc_to_target: right\n")
    path = folder / "own.yaml"
    path.write_text(
        "include: _base_yaml\ntask: own_csv\ndataset_kwargs:\n  data_files: {test: data.csv}\n"
        "process_docs: !function helpers.keep\ndoc_to_text: !function helpers.text\ndoc_to_choice: [yes, 'no']\n"
        "grader: contains\nlengths: 99\n"
    )
    with pytest.raises(TaskError, match="line 7: doc_to_choice has true or false, which YAML makes of yes and no"):
        tasks.load(str(path))
    path.write_text(path.read_text().replace("[yes, 'no']", "['yes', 'no']"))
    task = tasks.load(str(path))
    assert (task.lengths, task.stop, task.greedy, task.grader) == ((99,), ("\n\n",), True, "contains")
    assert [(doc.prompt, doc.target) for doc in tasks.load(str(path)).docs()] == [("b?", "no"), ("c?", "yes")]
    before = tasks.load(str(path)).version
    (folder / "helpers.py").write_text((folder / "helpers.py").read_text().replace("?", "!"))
    after = tasks.load(str(path))
    assert after.version != before
    assert after.docs(1)[0].prompt == "b!"
    # What a run keeps of it needs no included file.
    sources.declare(path)
    kept = sources.describe(["own_csv"])
    shutil.rmtree(folder)
    sources._SOURCES.clear()
    sources.restore(kept)
    assert tasks.load("own_csv").lengths == (99,)


def test_a_function_lies_beside_the_file_that_names_it(tmp_path):
    """As under lm-eval, though a file of another folder includes that one; what a run keeps finds it too."""
    for place in ("here", "there"):
        base, own = tmp_path / place / "base", tmp_path / place / "own"
        base.mkdir(parents=True)
        own.mkdir()
        (base / "utils.py").write_text("def ask(doc):\n    return f\"base {doc['q']}\"\n")
        (own / "utils.py").write_text("def answer(doc):\n    return f\"own {doc['q']}\"\n")
        (own / "q.jsonl").write_text('{"q": "x"}\n')
        (base / "_base_yaml").write_text(
            "dataset_path: json\ndataset_kwargs: {data_files: {test: q.jsonl}}\ntest_split: test\n"
            "doc_to_text: !function utils.ask\n"
        )
        (own / "own.yaml").write_text(
            "include: ../base/_base_yaml\ntask: split\ndoc_to_target: !function utils.answer\n"
        )
    path = tmp_path / "here" / "own" / "own.yaml"
    task = tasks.load(str(path))
    assert [(doc.prompt, doc.target) for doc in task.docs()] == [("base x", "own x")]
    assert tasks.load(str(tmp_path / "there" / "own" / "own.yaml")).version == task.version  # wherever the files lie
    sources.declare(path)
    kept = sources.describe(["split"])
    assert str(tmp_path) not in kept["split"]["text"]
    path.unlink()
    (tmp_path / "here" / "base" / "_base_yaml").unlink()
    sources._SOURCES.clear()
    sources.restore(kept)
    again = tasks.load("split")
    assert [(doc.prompt, doc.target) for doc in again.docs()] == [("base x", "own x")]
    assert again.version == task.version
    helpers = tmp_path / "here" / "base" / "utils.py"
    helpers.write_text(helpers.read_text().replace("base", "other"))
    assert tasks.load("split").version != task.version
    assert pickle.loads(pickle.dumps(again.origin.config)) == again.origin.config


def test_other_data_in_place_of_the_split(folder, tmp_path):
    (tmp_path / "other.jsonl").write_text('{"river": "Elbe", "sea": "North Sea"}\n')
    (doc,) = tasks.load(str(folder / "rivers.yaml")).docs(data=str(tmp_path / "other.jsonl"))
    assert doc.prompt.endswith("River: Congo\nSea: Atlantic Ocean\n\nRiver: Elbe\nSea:")
    with pytest.raises(TaskError, match=r"--data: .*none.jsonl is no .jsonl"):
        tasks.load(str(folder / "rivers.yaml")).docs(data="none.jsonl")


def test_lm_eval_is_asked_for_by_name_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.api.task", None)
    monkeypatch.setitem(sys.modules, "lm_eval.filters", None)
    task = tasks.load(str(RIVERS))  # which needs nothing
    for use in (task.docs, task.new_grader().prepare):
        with pytest.raises(TaskError, match="pip install lm-eval"):
            use()
    assert len(tasks.load(str(RIVERS.parent / "capitals.yaml")).docs()) == 4
