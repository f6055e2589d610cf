"""The tasks on public data: their prompts, their data in the sources' own columns, and lm-eval's reading of them."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter

import public_data_rows
import pytest
from repository import SHARED

from hyperscale import tasks
from hyperscale.errors import TaskError
from hyperscale.scoring import graders
from hyperscale.tasks import loading, row_formats
from hyperscale.utils.paths import data_dir

NAMES = sorted(public_data_rows.BY_TASK)

# A changed prompt, or changed grading, is another task: change the version in the task's file, and both entries here.
PINNED = {
    "aime24": ("1.1", "bdef4175fda3fe62"),
    "aime25": ("1.1", "bdef4175fda3fe62"),
    "gpqa_diamond": ("1.1", "16c923d83a17a714"),
    "livecodebench": ("1.1", "bd069a65c860cf3f"),
    "math500": ("1.1", "9978eb504795cd02"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_prompt_changes_the_version(name):
    task = tasks.load(name)
    assert (task.version, hashlib.sha256(task.template.encode()).hexdigest()[:16]) == PINNED[name]


def docs(name, tmp_path, data=None, suffix=".jsonl", **choices):
    path = public_data_rows.write(tmp_path / f"data{suffix}", data or public_data_rows.BY_TASK[name])
    return tasks.load(name).with_parameters(**choices).docs(data=str(path))


RIGHT = {
    "aime24": r"\boxed{243}",
    "aime25": r"\boxed{243}",
    "math500": r"\boxed{0.75}",
    "livecodebench": "```python\na, b = map(int, input().split())\nprint(a + b)\n```",
}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("name", NAMES)
def test_documents_can_be_graded(name, suffix, tmp_path):
    task, problems = tasks.load(name), docs(name, tmp_path, suffix=suffix)
    grader = graders.get(task.grader)
    right = RIGHT.get(name, f"Answer: {problems[0].target}")
    for text, verdict in ((right, True), (right.replace("243", "244").replace("0.75", "3").replace("+", "-"), False)):
        if name == "gpqa_diamond" and not verdict:
            text = "Answer: " + ("A" if problems[0].target != "A" else "B")
        answer = grader.extract(f"Hm.</think>{text}")
        assert grader.correct(answer, problems[0].target) is verdict
    json.dumps([doc.target for doc in problems])


def test_prompts_hold_the_problem_and_say_how_to_answer(tmp_path):
    assert "$3^5$" in docs("aime24", tmp_path)[0].prompt
    assert docs("aime24", tmp_path)[0].prompt.splitlines()[-1].count(r"\boxed{N}") == 1
    assert r"\frac{6}{8}" in docs("math500", tmp_path)[0].prompt
    stdin, functional = docs("livecodebench", tmp_path)
    assert "standard input" in stdin.prompt
    assert "Begin with this code" not in stdin.prompt
    assert "standard input" not in functional.prompt
    assert "    def add(self, a: int, b: int) -> int:\n```" in functional.prompt
    prompt = docs("gpqa_diamond", tmp_path)[3].prompt
    assert "instrument number 3" in prompt
    assert [line[:2] for line in prompt.splitlines() if line[1:2] == ")"] == ["A)", "B)", "C)", "D)"]


def test_options_are_spread_and_stay(tmp_path):
    problems = docs("gpqa_diamond", tmp_path)
    assert problems == docs("gpqa_diamond", tmp_path)
    assert set(Counter(doc.target for doc in problems)) == set("ABCD")
    for doc in problems:
        (right,) = [line for line in doc.prompt.splitlines() if "The law of slit" in line]
        assert right.startswith(f"{doc.target}) ")


def test_the_window_of_livecodebench(tmp_path):
    def ids(**choices):
        return [doc.id for doc in docs("livecodebench", tmp_path, **choices)]

    assert ids() == ["inv2", "inv3"]
    assert ids(exclude_broken="false") == ["inv2", "inv3", "abc350_c"]
    assert ids(start_date="none", end_date="none") == ["inv1", "inv2", "inv3", "inv4"]
    assert ids(start_date="2025-02-01", end_date="") == ["inv4"]
    assert [doc.level for doc in docs("livecodebench", tmp_path)] == [1, 3]
    task = tasks.load("livecodebench")
    assert task.origin.dataset.name == "release_v6"
    assert task.with_parameters(release="release_v5").origin.dataset.name == "release_v5"
    for choices, text in (
        ({"start_date": "May"}, "'May' is not a date"),
        ({"start_date": "2025-02-01"}, "leave no day"),
        ({"colour": "red"}, "no parameter 'colour'; it has: release, start_date"),
        ({"exclude_broken": "maybe"}, "true or false"),
        (
            {"start_date": "2026-01-01", "end_date": ""},
            "none of the 5 problems .* start_date is 2026-01-01, its end_date open",
        ),
    ):
        with pytest.raises(TaskError, match=text):
            ids(**choices)
    with pytest.raises(TaskError, match="it has: none"):
        tasks.load("aime24").with_parameters(release="x")


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("aime24", {"ID": "2024-I-1", "Problem": "p", "Solution": "s", "Answer": 33}, ("2024-I-1", "33")),
        ("aime24", {"id": 5, "problem": "p", "solution": r"so \boxed{033}", "url": ""}, ("5", "33")),
        ("aime25", {"question": "p", "answer": "588"}, (hashlib.sha256(b"p").hexdigest()[:12], "588")),
        ("aime25", {"problem_idx": 1, "problem": "p", "answer": 70, "problem_type": []}, ("1", "70")),
        ("aime25", {"id": 0, "problem": "p", "answer": 336.0}, ("0", "336")),
        ("aime25", {"id": 0, "problem": "p", "answer": r"336^\circ"}, ("0", "336")),  # as one mirror has it
        ("math500", {"unique_id": "u", "problem": "p", "answer": "x^2", "level": "Level 4"}, ("u", "x^2")),
    ],
)
def test_other_sources_columns(name, row, expected, tmp_path):
    (doc,) = docs(name, tmp_path, [row])
    assert (doc.id, doc.target) == expected
    assert doc.level == (4 if name == "math500" else None)


@pytest.mark.parametrize(
    ("name", "row", "text"),
    [
        (
            "aime24",
            {"answer": 3},
            "line 1 has no field problem or question or prompt or input; its fields: answer",
        ),
        ("aime24", {"problem": "p"}, "no field answer or expected_answer .*; its fields: problem"),
        ("aime24", {"problem": "p", "answer": "x+1"}, "'x\\+1', which is not an integer"),
        ("gpqa_diamond", {"Question": "q", "Correct Answer": "a"}, "no field Incorrect Answer 1"),
        ("livecodebench", {"question_content": "q"}, "no field contest_date"),
        ("livecodebench", {**public_data_rows.PROGRAMS[1], "private_test_cases": None}, "no field private_test_cases"),
        ("livecodebench", {**public_data_rows.PROGRAMS[1], "contest_date": "soon"}, "'soon' is not a date"),
    ],
)
def test_missing_fields_name_what_is_accepted(name, row, text, tmp_path):
    with pytest.raises(TaskError, match=text):
        docs(name, tmp_path, [row])


def test_bad_files(tmp_path):
    def fails(path, text):
        with pytest.raises(TaskError, match=text) as error:
            tasks.load("aime24").docs(data=str(path))
        assert "\n" not in str(error.value)

    fails(tmp_path / "none.jsonl", "no file or folder")
    fails(tmp_path, "holds no .jsonl or .parquet file")
    for name, content, text in (
        ("a.csv", "a,b", "is not a .jsonl or .parquet file"),
        ("a.jsonl", '{"problem": "p", "answer": 1}\n{', "line 2 is not JSON"),
        ("b.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("e.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("c.jsonl", "\n", "holds no rows"),
        ("d.jsonl", '{"id": 1, "problem": "p", "answer": 1}\n{"id": 1, "problem": "q", "answer": 2}\n', "same id '1'"),
        ("a.parquet", "PAR1", "not a readable Parquet file"),
    ):
        (tmp_path / name).write_text(content)
        fails(tmp_path / name, text)


def test_a_folder_is_its_files_in_order(tmp_path):
    public_data_rows.write(tmp_path / "b.parquet", [{"id": "2", "problem": "q", "answer": "2"}])
    public_data_rows.write(tmp_path / "a.jsonl", [{"id": "1", "problem": "p", "answer": "1"}])
    (tmp_path / "README.md").write_text("no data")
    assert [doc.id for doc in tasks.load("aime24").docs(data=str(tmp_path))] == ["1", "2"]
    assert [doc.id for doc in tasks.load("aime24").docs(1, str(tmp_path))] == ["1"]


def test_a_file_may_stand_in_for_a_generated_task(tmp_path):
    path = public_data_rows.write(tmp_path / "mini.jsonl", [{"id": "x", "prompt": "p", "target": "7", "level": 3}])
    assert tasks.load("mini_aime").docs(data=str(path)) == [tasks.Doc("x", "p", "7", 3)]


def test_another_prompt_target_or_id_has_another_fingerprint():
    doc = tasks.Doc("a", "p", "1")
    variants = [tasks.Doc("b", "p", "1"), tasks.Doc("a", "q", "1"), tasks.Doc("a", "p", "2")]
    assert len({tasks.fingerprint([variant]) for variant in (doc, *variants)}) == 4
    assert tasks.fingerprint([doc]) == tasks.fingerprint([tasks.Doc("a", "p", "1")])


def test_without_data_and_network_the_error_comes_fast_and_says_what_to_do(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(TaskError) as error:
        tasks.load("gpqa_diamond").docs()
    text = str(error.value)
    for part in ("Idavidrein/gpqa", "is gated", "hf auth login", "--data gpqa_diamond=PATH", "cannot be reached"):
        assert part in text
    with pytest.raises(TaskError, match="not gated") as error:
        tasks.load("aime24").docs()
    assert "HuggingFaceH4/aime_2024" in str(error.value)
    assert not constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE")


def test_what_the_hub_refuses_is_told(monkeypatch):
    monkeypatch.setattr(loading, "reachable", lambda: True)

    def refuse(*_, **__):
        raise RuntimeError("Dataset is a gated dataset on the Hub.\nmore")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(TaskError, match=r"\(Dataset is a gated dataset on the Hub\.\)"):
        tasks.load("gpqa_diamond").docs()


@pytest.mark.parametrize(("name", "first"), [("aime24", "73"), ("aime25", "70")])
def test_the_real_problems(name, first):
    path = SHARED / f"{name}.jsonl"
    if not path.exists():
        pytest.skip("the problems are not here")
    problems = tasks.load(name).docs(data=str(path))
    assert len(problems) == tasks.load(name).size == 30
    assert problems[0].target == first
    assert all(0 <= int(doc.target) <= 999 for doc in problems)


def test_windows():
    assert row_formats.parse_date_range(None, None) == row_formats.DateRange()
    assert row_formats.parse_date_range("2024-08-01", None).start.isoformat() == "2024-08-01"


@pytest.mark.e2e
def test_lm_eval_reads_the_same_tasks(tmp_path):
    """In a process of its own: lm-eval is slow to import and would load torch into every other test."""
    paths = {
        name: str(public_data_rows.write(tmp_path / f"{name}.jsonl", data))
        for name, data in public_data_rows.BY_TASK.items()
    }
    code = """
import json, sys
from lm_eval.tasks import TaskManager
from hyperscale import tasks
from hyperscale.scoring import graders
paths = json.loads(sys.argv[2])
meta = {"data": paths, "model": "x", "method": "dms", "end_date": "2024-12-31"}
manager = TaskManager(include_path=sys.argv[1], include_defaults=False, metadata=meta)
loaded = manager.load(sorted(paths))["tasks"]
for name, path in paths.items():
    task, ours = loaded[name], tasks.load(name)
    if name == "livecodebench":
        ours = ours.with_parameters(end_date="2024-12-31")
    docs, mine = list(task.eval_docs), ours.docs(data=path)
    assert [task.doc_to_text(d) for d in docs] == [d.prompt for d in mine], name
    assert [json.loads(d["target"]) for d in docs] == [d.target for d in mine], name
    assert len(mine) == (1 if name == "livecodebench" else len(docs))
    assert task.config.generation_kwargs["max_gen_toks"] == ours.lengths[-1]
    assert task.process_results(docs[0], ["nothing"]) == {"accuracy": 0.0}
right = "</think>" + chr(92) + "boxed{243}"
assert loaded["aime24"].process_results(list(loaded["aime24"].eval_docs)[0], [right]) == {"accuracy": 1.0}
"""
    folder = data_dir("tasks")
    process = subprocess.run(
        [sys.executable, "-c", code, str(folder), json.dumps(paths)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
