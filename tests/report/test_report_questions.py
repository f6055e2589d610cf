"""What a report shows beside chains: their questions, and the tests that wrong programs fail."""

import dataclasses
import json

import pytest
from report_pages import Page, unpacked
from report_runs import run
from synthetic_samples import forced_answer, sample

from hyperscale import report, tasks
from hyperscale.errors import SandboxError
from hyperscale.report.html import failures, questions
from hyperscale.tasks.task import prompt_hash


@pytest.fixture
def asked():
    doc = tasks.load("mini_aime").docs(2)[1]
    return doc, sample(doc.id, prompt_hash=prompt_hash(doc.prompt))


def test_questions_of_built_in_tasks_stand_beside_their_chains(asked, tmp_path):
    doc, line = asked
    (problem,) = Page(report.render_report([run(tmp_path, [line], limit=2)], "x")).index["problems"]
    assert (problem["question"], problem["target"]) == (doc.prompt, doc.target)
    changed = dataclasses.replace(line, prompt_hash="of another version")
    (problem,) = Page(report.render_report([run(tmp_path, [changed], limit=2)], "x")).index["problems"]
    assert problem["question"] is None


@pytest.fixture
def programs():
    """Chains of a built-in task with programs: a right one, two wrong ones, one of them an answer that was forced."""
    doc = tasks.load("mini_lcb").docs(1)[0]
    fields = {"task": "mini_lcb", "prompt_hash": prompt_hash(doc.prompt)}
    wrong = "def f(x):\n    return '</script>'"
    lines = [
        sample(doc.id, 0, answer="def f(x): pass", right=True, **fields),
        sample(doc.id, 1, answer=wrong, **fields),
        sample(doc.id, 2, tokens=600, L=512, answer=None, forced={512: forced_answer(512, "no (")}, **fields),
        sample("another", 3, answer=wrong, **fields),
    ]
    return doc, wrong, lines


def test_wrong_programs_tell_the_test_that_they_fail(programs, tmp_path, monkeypatch):
    doc, wrong, lines = programs
    index = Page(report.render_report([run(tmp_path, lines, limit=1)], "x")).index
    first = doc.target[0]
    texts = [json.dumps(first[name]) if not isinstance(first[name], str) else first[name] for name in first]
    (problem,) = [problem for problem in index["problems"] if problem["id"] == doc.id]
    found = {problem["answers"][int(place)]: failure for place, failure in problem["failures"].items()}
    assert found == {
        wrong: [1, len(doc.target), *texts, "</script>", "wrong"],
        "no (": [1, len(doc.target), *texts, None, "error"],
    }
    assert index["unexplained"] is None
    assert [p["failures"] for p in index["problems"] if p["id"] == "another"] == [{}]
    monkeypatch.setattr(failures, "MAX_PROGRAMS", 1)
    index = Page(report.render_report([run(tmp_path, lines, limit=1)], "x")).index
    assert index["unexplained"] == "Wrong programs whose failed test is not told: 1."
    assert sum(len(p["failures"]) for p in index["problems"]) == 1


def test_without_a_sandbox_the_page_says_so(programs, tmp_path, monkeypatch):
    from hyperscale.scoring.sandbox import pool

    def refuse(*_):
        raise SandboxError("no sandbox works here")

    monkeypatch.setattr(pool, "_runners", {})
    monkeypatch.setattr(pool.choose, "choose_level", refuse)
    index = Page(report.render_report([run(tmp_path, programs[2], limit=1)], "x")).index
    assert index["unexplained"] == "Why programs are wrong is not told: no sandbox works here."
    assert not any(problem["failures"] for problem in index["problems"])


def test_questions_of_gated_and_of_downloaded_sets_stand_nowhere(asked, tmp_path, monkeypatch):
    doc, line = asked
    load = tasks.load
    others = [dataclasses.replace(line, task=name) for name in ("gpqa_diamond", "aime24")]
    assert questions.find_questions([run(tmp_path, others)]) == {}
    monkeypatch.setattr(tasks, "load", lambda name: dataclasses.replace(load(name), gated=True))
    text = report.render_report([run(tmp_path, [line], limit=2)], "x")
    (problem,) = Page(text).index["problems"]
    assert (problem["question"], problem["target"]) == (None, None)
    everything = text + "".join(json.dumps(unpacked(b)) for n, b in Page(text).blocks.items() if n == "index")
    assert doc.prompt[:30] not in everything


@pytest.mark.parametrize("gated", [False, True])
def test_questions_and_tests_of_an_own_task_are_shown_unless_it_is_gated(tmp_path, gated):
    """Questions, right answers and the tests that programs fail, in reports and in exports, which ask the same way."""
    row = {"id": "add", "question": "Write f(x) that adds one.", "tests": [{"input": 1, "output": 2}]}
    (tmp_path / "adding.jsonl").write_text(json.dumps(row))
    path = tmp_path / "adding.yaml"
    path.write_text(
        "task: adding\nsummary: programs\ndata: adding.jsonl\nprompt: '{{question}}'\nanswer: tests\ngrader: code\n"
        "lengths: [64, 128]\n" + "gated: true\n" * gated
    )
    (doc,) = tasks.load(str(path)).docs(1)
    line = sample("add", task=str(path), answer="def f(x):\n    return 7", prompt_hash=prompt_hash(doc.prompt))
    found = questions.find_questions([run(tmp_path, [line])])
    assert [question.prompt for question in found.values()] == ([] if gated else [row["question"]])
    explained = failures.explain_failures([run(tmp_path, [line])], found).failures
    assert list(explained.values()) == ([] if gated else [[1, 1, "1", "2", "7", "wrong"]])
