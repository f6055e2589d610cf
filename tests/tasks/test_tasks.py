import hashlib
import json
import subprocess
import sys
from pathlib import Path

import architectures
import pytest
import yaml

from hyperscale import tasks
from hyperscale.errors import TaskError
from hyperscale.scoring import graders
from hyperscale.tasks.task_files import _Loader
from hyperscale.utils.paths import data_dir

MINI = ["mini_aime", "mini_gpqa", "mini_lcb"]


@pytest.mark.parametrize("name", MINI)
def test_a_task_file_loads(name):
    task = tasks.load(name)
    assert task.name == name
    assert task.lengths == (256, 512, 1024, 2048)
    assert task.base_length == 1024
    assert task.strategy == ("pass" if name == "mini_lcb" else "majority")
    assert tasks.available()[name] == task.summary


@pytest.mark.parametrize("name", MINI)
def test_documents_are_stable_unique_and_gradable(name):
    task = tasks.load(name)
    docs = task.docs(20)
    assert docs == task.docs(20)
    assert docs[:5] == task.docs(5)
    assert len({doc.id for doc in docs}) == len({doc.prompt for doc in docs}) == 20
    json.dumps([doc.target for doc in docs])
    grader = graders.get(task.grader)
    for doc in docs[:3]:
        right, wrong = _answers(name, doc.target)
        assert grader.correct(grader.extract(f"</think>{right}"), doc.target)
        assert not grader.correct(grader.extract(f"</think>{wrong}"), doc.target)


def _answers(name, target):
    """A right and a wrong answer's text; the program for code is a table of its own hidden tests."""
    if name == "mini_aime":
        return rf"\boxed{{{target}}}", rf"\boxed{{{int(target) + 1}}}"
    if name == "mini_gpqa":
        return f"Answer: {target}", f"Answer: {'A' if target != 'A' else 'B'}"
    table = {str(test["input"]): test["output"] for test in target}
    return f"```python\ndef f(x):\n    return {table}[str(x)]\n```", "```python\ndef f(x):\n    return 0\n```"


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(TaskError, match="mini_aime, mini_gpqa, mini_lcb"):
        tasks.load("aime")
    with pytest.raises(TaskError, match="unknown task"):
        tasks.load("../tasks/mini_aime")
    with pytest.raises(TaskError, match="at least 1"):
        tasks.load("mini_aime").docs(0)


def _edited(tmp_path, **changes):
    text = (data_dir("tasks") / "mini_aime.yaml").read_text()
    config = yaml.load(text, Loader=_Loader)
    config["metadata"] = {k: v for k, v in {**config["metadata"], **changes}.items() if v is not None}
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"grader": "vibes"},
            r"metadata\.grader must be one of integer, math, choice, code, livecodebench, contains, got 'vibes'",
        ),
        ({"grader": None}, r"metadata\.grader is missing"),
        ({"strategy": "luck"}, r"metadata\.strategy must be 'majority' or 'pass', got 'luck'"),
        ({"lengths": [512, 256]}, r"metadata\.lengths must be ascending"),
        ({"lengths": [0, 1024]}, r"metadata\.lengths\.0 must be at least 1, got 0"),
        ({"lengths": "many"}, r"metadata\.lengths must be a list, got 'many'"),
        ({"base_length": 1000}, "base_length 1000, which is not one of its lengths"),
        ({"size": "all"}, r"metadata\.size must be a whole number, got 'all'"),
        ({"leghts": [1]}, r"metadata\.leghts is unknown: did you mean 'lengths'\?"),
        ({"kind": None}, "kind, of the built-in generator, or form"),
        ({"form": "integer"}, "and not both"),
        (
            {"kind": None, "form": "integr"},
            r"metadata\.form must be one of problem, integer, choice, program, given, got 'integr'",
        ),
        ({"kind": None, "form": "integer"}, "dataset_path is missing"),
    ],
)
def test_a_malformed_file_is_one_clear_error(tmp_path, changes, message):
    with pytest.raises(TaskError, match=message) as caught:
        tasks.read(_edited(tmp_path, **changes))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "edited.yaml"))


def test_a_key_that_lm_eval_does_not_know_is_named_with_its_line(tmp_path):
    path = tmp_path / "edited.yaml"
    path.write_text((data_dir("tasks") / "mini_aime.yaml").read_text().replace("test_split:", "tset_split:"))
    with pytest.raises(TaskError, match=r"edited\.yaml, line 3: tset_split is unknown: did you mean 'test_split'\?"):
        tasks.read(path)
    text = (data_dir("tasks") / "mini_aime.yaml").read_text()
    path.write_text(text.replace("base_length: 1024", "base_length: long"))
    line = text[: text.index("base_length")].count("\n") + 1
    with pytest.raises(TaskError, match=rf"edited\.yaml, line {line}: metadata\.base_length must be a whole number"):
        tasks.read(path)


def test_broken_yaml_and_missing_files_are_errors(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("task: [")
    with pytest.raises(TaskError, match="cannot read"):
        tasks.read(path)
    with pytest.raises(TaskError, match="cannot read"):
        tasks.read(tmp_path / "missing.yaml")
    path.write_text("- 1")
    with pytest.raises(TaskError, match="is not a mapping"):
        tasks.read(path)


def test_reading_a_file_runs_no_code(tmp_path):
    path = tmp_path / "evil.yaml"
    mark = tmp_path / "mark"
    text = (data_dir("tasks") / "mini_aime.yaml").read_text()
    (tmp_path / "mini.py").write_text(f"open({str(mark)!r}, 'w')")
    path.write_text(text)
    assert tasks.read(path).name == "mini_aime"
    path.write_text(text + f"\nevil: !!python/object/apply:os.system ['touch {mark}']\n")
    with pytest.raises(TaskError):
        tasks.read(path)
    assert not mark.exists()


def test_prompt_hash_is_the_head_of_sha256():
    assert tasks.prompt_hash("a prompt") == hashlib.sha256(b"a prompt").hexdigest()[:16]


def test_prompt_ids_go_through_the_chat_template():
    task, words = tasks.load("mini_aime"), architectures.tokenizer()
    doc = task.docs(1)[0]
    assert words.decode(task.prompt_ids(doc, words)) == f"<|user|>{doc.prompt}<|model|><think>\n"
    words.chat_template = None  # a base model is asked in plain text
    assert words.decode(task.prompt_ids(doc, words)) == f"{doc.prompt}\n"


@pytest.mark.e2e
def test_tasks_load_in_lm_eval_and_grade_alike():
    """In a process of its own: lm-eval is slow to import and would load torch into every other test."""
    code = """
import json, sys
from dataclasses import fields
from lm_eval.config.task import TaskConfig
from lm_eval.tasks import TaskManager
from hyperscale import tasks
from hyperscale.tasks.task_files import LM_EVAL_KEYS
assert {field.name for field in fields(TaskConfig)} == LM_EVAL_KEYS
manager = TaskManager(include_path=sys.argv[1], include_defaults=False)
names = ["mini_aime", "mini_gpqa", "mini_lcb"]
loaded = manager.load(names)["tasks"]
for name in names:
    task, ours = loaded[name], tasks.load(name)
    docs = list(task.test_docs())
    mine = ours.docs()
    assert [d["prompt"] for d in docs] == [d.prompt for d in mine], name
    assert [json.loads(d["target"]) for d in docs] == [d.target for d in mine], name
    assert task.doc_to_text(docs[0]) == mine[0].prompt
    assert task.config.generation_kwargs["max_gen_toks"] == ours.lengths[-1]
    assert task.process_results(docs[0], ["no answer"]) == {"accuracy": 0.0}
task, doc = loaded["mini_aime"], list(loaded["mini_aime"].test_docs())[0]
right = "</think>" + chr(92) + "boxed{" + json.loads(doc["target"]) + "}"
assert task.process_results(doc, [right]) == {"accuracy": 1.0}
"""
    folder = Path(data_dir("tasks"))
    process = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
