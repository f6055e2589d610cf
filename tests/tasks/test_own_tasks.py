"""Tasks of a user's own: the examples as they stand, what a check says, runs, resumes after a change."""

import json
import random
import re
import shutil
from pathlib import Path

import architectures
import commandline
import pytest
import yaml

from hyperscale import tasks
from hyperscale.errors import TaskError
from hyperscale.tasks.own import sources
from hyperscale.tasks.own_check import check_file
from hyperscale.utils.user_functions import load_function

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
OWN_FORM = ["capitals", "planets", "sums"]


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


@pytest.fixture
def folder(tmp_path):
    """A copy of the examples, to be spoilt."""
    return shutil.copytree(EXAMPLES, tmp_path / "tasks")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return architectures.write(tmp_path_factory.mktemp("model") / "llama", "llama")


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def test_every_example_is_right_as_it_stands(run):
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} >= set(OWN_FORM)
    code, out, err = run("tasks", "--check", EXAMPLES)
    assert code == 0, err
    assert "| What is the capital of France? Answer with its name." in out
    assert "its target: 'Paris'" in out
    assert "on a right answer, 'Answer: C': right" in out
    generated = [path for path in EXAMPLES.glob("*.yaml") if path.stem != "planets-likely"]
    assert out.count("on a wrong answer") == out.count("wrong\n") == len(generated)
    assert "0 right ' Jupiter'" in out
    assert "capitals of countries" in run("tasks", "--include", EXAMPLES)[1]


def test_a_file_of_a_folder_that_cannot_be_read_is_one_mistake(run, tmp_path):
    (tmp_path / "broken.yaml").write_text("task: broken\n data: x.jsonl\n")
    (tmp_path / "typing.yaml").write_text("task: typing\nlenghts: [64]\n")
    code, out, err = run("tasks", "--check", tmp_path)
    assert code == 2
    assert out.count("mapping values are not allowed here") == 1
    assert f"{out.count('wrong: ')} mistakes" in err


def test_the_page_shows_the_examples_as_they_are():
    page = (EXAMPLES.parents[1] / "docs" / "own-tasks.md").read_text()
    blocks = re.findall(r"^```(?:yaml|python|json)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    files = {path.name: path.read_text() for path in EXAMPLES.iterdir() if path.is_file()}
    shown = [name for block in blocks for name, text in files.items() if block in text]
    assert len(shown) == len(blocks)
    assert {f"{name}.yaml" for name in OWN_FORM} <= set(shown)


def test_options_are_shown_in_an_order_of_each_questions_own():
    docs = tasks.load(str(EXAMPLES / "planets.yaml")).docs()
    rows = [json.loads(line) for line in (EXAMPLES / "planets.jsonl").read_text().splitlines()]
    for doc, row in zip(docs, rows, strict=True):
        lines = dict(line.split(". ", 1) for line in doc.prompt.splitlines() if line[1:3] == ". ")
        assert lines[doc.target] == row["right"]
        assert sorted(lines.values()) == sorted(row["options"])
    assert len({doc.target for doc in docs}) > 1


def test_generated_problems_are_those_of_their_seed_and_number():
    task = tasks.load(str(EXAMPLES / "sums.yaml"))
    assert task.docs(3) == task.docs()[:3]
    assert len(task.docs()) == 50
    first = random.Random("0-0")
    assert f"Add up {', '.join(str(first.randrange(10, 100)) for _ in range(2))}." in task.docs(1)[0].prompt
    other = task.with_parameters(seed="7", problems="5")
    assert len(other.docs()) == other.size == 5
    assert not {doc.prompt for doc in other.docs()} & {doc.prompt for doc in task.docs(5)}
    with pytest.raises(TaskError, match="has no parameter 'size'; it has: seed, problems"):
        task.with_parameters(size=3)


def test_a_version_tells_definitions_and_modules_apart_but_no_comments(folder):
    def version(name):
        return tasks.load(str(folder / f"{name}.yaml")).version

    before = version("sums")
    edit(folder / "sums.yaml", "# A generated", "# Another comment on a generated")
    edit(folder / "sums.yaml", "lengths: [128, 256]", "lengths: [64]")
    assert version("sums") == before
    edit(folder / "sums.py", '" ."', '" .!"')
    assert version("sums") != before
    before = version("capitals")
    edit(folder / "capitals.yaml", "its name", "the name")
    assert version("capitals") != before


MISTAKES = [
    # (file, what is changed, to what, what the check says)
    ("capitals.yaml", "grader: contains", "grader: contain", r"line 7: grader must be module:function, or one of"),
    ("capitals.yaml", "grader: contains", "grader: contains\nstrategy: bets", r"line \d+: strategy must be 'majority'"),
    ("capitals.yaml", "prompt:", "promt:", r"line 5: promt is unknown: did you mean 'prompt'\?"),
    ("capitals.yaml", "{{country}}", "{{contry}}", r"line 5: prompt: 'contry' is no field .*mean 'country'\?"),
    ("capitals.yaml", "{{country}}", "{country}", r"line 5: prompt names no field .* two braces"),
    ("capitals.yaml", "{{country}}", "{{country", r"line 5: prompt is no template: line 1"),
    ("capitals.yaml", "answer: capital", "answer: city", r"jsonl line 1: answer: 'city' is no field of the problem"),
    ("capitals.yaml", "capitals.jsonl", "no.jsonl", r"line 4: data: capitals: there is no file .*no\.jsonl"),
    ("capitals.yaml", "task: capitals", "task: aime24", r"task aime24 is one of hyperscale's own"),
    ("capitals.yaml", "[64, 128]", "[128, 64]", r"line 8: lengths must be ascending"),
    ("capitals.yaml", "grader: contains", "grader: integer", r"jsonl line 4: its answer is 'Lima'"),
    ("capitals.jsonl", '"Tokyo"', '""', r"jsonl line 2: answer: its field capital is empty"),
    ("capitals.jsonl", '"jp"', '"fr"', r"line 1 and .* line 2 have the same id 'fr': give them ids"),
    ("planets.yaml", "{{choices}}", "", r"has choices that the prompt does not show"),
    ("planets.jsonl", '"right": "Saturn"', '"right": "Titan"', r"line 4: answer: 'Titan' is none of the options"),
    ("sums.yaml", "sums:is_total", "sums:total", r"line 8: grader: .*sums.py has no function total; it has: is_total"),
    ("sums.yaml", "sums:make_problem", "other:make", r"line 4: generator: there is no module other for other:make"),
    (
        "sums.py",
        "== str(target)",
        "== str(target) + 1",
        r"line 8: grader sums:is_total: .*sums.py, line 13 raises Type",
    ),
    ("sums.py", "return last.strip", "return 0.5 or last.strip", r"line 8: grader sums:is_total returns 0.5"),
    ("sums.py", "== str(target)", "!= str(target)", r"grader sums:is_total takes a right answer for wrong"),
    ("sums.py", "return last.strip", "return True or last.strip", r"takes another problem's answer for right"),
    ("sums.py", "rng.randrange", "__import__('random').randrange", r"line 4: generator .*draw from `rng` alone"),
    ("sums.py", "    return {", "    number // number\n    return {", r"generator .*sums.py, line 7 raises ZeroDivis"),
]


@pytest.mark.parametrize(("file", "old", "new", "message"), MISTAKES, ids=lambda value: str(value)[:24])
def test_a_check_says_what_is_wrong_with_file_line_and_key(folder, run, file, old, new, message):
    edit(folder / file, old, new)
    path = folder / f"{file.split('.')[0]}.yaml"
    report = check_file(path)
    assert report.mistakes
    commandline.fails(run("tasks", "--check", path), "mend what is marked wrong")
    assert any(re.search(message, mistake) for mistake in report.mistakes), report.text


def test_a_check_lists_all_mistakes_of_a_file(folder):
    path = folder / "capitals.yaml"
    edit(path, "task: capitals", "task: two words")
    edit(path, "[64, 128]", "[0]")
    edit(path, "summary", "sumary")
    text = "\n".join(check_file(path).mistakes)
    assert len(check_file(path).mistakes) == 3, text
    assert all(part in text for part in ("line 2: task must", "line 8: lengths.0 must be at least 1", "sumary"))


def test_groups_are_checked_with_their_folder_and_listed(folder, run, monkeypatch):
    monkeypatch.setattr(sources, "_GROUP_SOURCES", {})
    (folder / "all.yaml").write_text("group: all\ntask: [capitals, sums]\n")
    code, out, _ = run("tasks", "--check", folder)
    assert code == 0
    assert "all: capitals, sums" in out
    code, out, _ = run("tasks", "--check", folder / "all.yaml")
    assert code == 2
    assert "this is the group all and no task" in out
    code, out, _ = run("tasks", "--include", folder)
    assert "the tasks capitals, sums" in " ".join(out.split())
    (folder / "bad.yaml").write_text("group: bad\ntask: [capitals, nosuch]\n")
    code, out, _ = run("tasks", "--check", folder)
    assert code == 2
    assert "the group bad lists nosuch" in out


def test_files_that_cannot_be_read(tmp_path, run):
    broken = tmp_path / "broken.yaml"
    broken.write_text('task: x\nprompt: "{{q}}: [\n')
    assert "broken.yaml, line 3" in check_file(broken).mistakes[0]
    assert "no task file" in check_file(tmp_path / "none.yaml").mistakes[0]
    for words in (["--task", "none.yaml"], ["--task", "capitals", "--include", "none"]):
        commandline.fails(
            run("run", "--model", "mini", *words, "--dry-run"), "no task file" if len(words) < 3 else "no folder"
        )
    (tmp_path / "run.yaml").write_text("model: mini\ninclude: none\ntask: x\n")
    commandline.fails(run("run", "--config", "run.yaml", "--dry-run"), "run.yaml, line 2: no folder")
    with pytest.raises(TaskError, match="a task of your own is named by its file"):
        tasks.load("capitalz")


def test_two_files_of_a_folder_may_not_share_a_name(folder):
    shutil.copy(folder / "capitals.yaml", folder / "copy.yaml")
    with pytest.raises(TaskError, match=r"capitals.yaml and .*copy.yaml are both named capitals: rename one"):
        sources.declare_folder(folder)
    (folder / "copy.yaml").rename(folder / "_copy.yaml")
    assert "capitals" in sources.declare_folder(folder)


def test_modules_beside_a_file_may_import_each_other(tmp_path):
    (tmp_path / "helper_of_a_grader.py").write_text("SECRET = 3\n")
    (tmp_path / "m.py").write_text("from helper_of_a_grader import SECRET\ndef f():\n    return SECRET\n")
    assert load_function("m:f", tmp_path, TaskError)() == 3
    (tmp_path / "m.py").write_text("import no_such_package_at_all\n")
    with pytest.raises(TaskError, match="needs no_such_package_at_all, which is not installed"):
        load_function("m:f", tmp_path, TaskError)


def test_a_run_of_own_tasks_and_what_a_change_does_to_its_resume(run, checkpoint, folder, tmp_path):
    """By file and by name; every change of the task is noticed; results are read where the files are gone."""
    command = ["run", "--model", checkpoint, "--method", "vanilla,streaming", "--cr", 2, "--budget", "1x", "--limit", 2]
    command += [
        "--length",
        6,
        "--task",
        "tasks/capitals.yaml,sums,rivers,mini_aime",
        "--include",
        "tasks",
        "--out",
        "r",
    ]
    command += ["--chat-template", "none"]  # the model's own opens a thinking, which six tokens do not end
    code, _, err = run(*command, "--dry-run")
    assert code == 0, err
    code, _, err = run(*command)
    assert code == 0, err
    samples = (tmp_path / "r" / "samples.jsonl").read_text()
    assert {json.loads(line)["task"] for line in samples.splitlines()} == {"capitals", "sums", "rivers", "mini_aime"}
    assert run(*command)[0] == 0
    assert (tmp_path / "r" / "samples.jsonl").read_text() == samples

    original = {path: path.read_text() for path in folder.iterdir() if path.is_file()}
    for file, old, new, what in (
        ("capitals.jsonl", "Paris", "Lutetia", "documents.capitals was"),
        ("capitals.yaml", "its name", "the name", "tasks.capitals was"),
        ("sums.py", '" ."', '" .!"', "tasks.sums was"),
    ):
        edit(folder / file, old, new)
        commandline.fails(run(*command), what)
        (folder / file).write_text(original[folder / file])
    # A mended grader: chains are graded again, and the run goes on.
    edit(folder / "sums.py", "return last.strip", "return True or last.strip")
    assert run("score", "r")[0] == 0
    assert run(*command)[0] == 0
    graded = [json.loads(line) for line in (tmp_path / "r" / "samples.jsonl").read_text().splitlines()]
    assert any(cut["correct"] for sample in graded if sample["task"] == "sums" for cut in sample["cuts"])

    shutil.rmtree(folder)
    sources._SOURCES.clear()  # as in another process
    for words in (["show", "r"], ["report", "r"], ["plot", "r"]):
        code, _, err = run(*words)
        assert code == 0, err
    commandline.fails(run("score", "r"), "there is no file")


def test_a_check_lists_all_rows_that_make_no_problem(folder):
    path = folder / "capitals.jsonl"
    edit(path, '"capital": "Paris"', '"city": "Paris"')
    edit(path, '"Lima"', "null")
    mistakes = check_file(folder / "capitals.yaml").mistakes
    assert [re.search(r"line (\d): answer", mistake)[1] for mistake in mistakes] == ["1", "4"]


JUNK = [
    None,
    True,
    0,
    -1,
    1.5,
    float("nan"),
    "",
    "x",
    "{{x}}",
    "{{",
    "{{ country + 1 }}",
    "{{ 1 / 0 }}",
    [],
    [None],
    {},
]
JUNK += [{"test": "rivers.jsonl"}, "capitals.jsonl", "rivers.yaml", "a:b", "sums:is_total", "a" * 5000, 10**30, [[1]]]
MORE_KEYS = ["id", "level", "options", "seed", "base_length", "strategy", "include", "process_docs", "doc_to_choice"]


@pytest.mark.parametrize("seed", range(4))
def test_no_file_is_more_than_wrong(folder, seed):
    """Files with keys left out, and values of any kind: a check lists mistakes, a load is a typed error or a task."""
    rng = random.Random(seed)
    names = ["capitals", "planets", "sums", "rivers"]
    files = [yaml.load((folder / f"{name}.yaml").read_text(), sources.task_loader()) for name in names]
    keys = sorted({key for values in files for key in values} | set(MORE_KEYS))
    outcomes = set()
    for _ in range(40):
        values = dict(rng.choice(files))
        for _ in range(rng.choice([1, 2])):
            key = rng.choice(keys if rng.random() < 0.4 else list(values))
            values[key] = rng.choice(JUNK)
            if rng.random() < 0.15:
                del values[key]
        path = folder / "own.yaml"
        path.write_text(yaml.safe_dump(values))
        report = check_file(path)
        outcomes.add(bool(report.mistakes))
        try:
            tasks.load(str(path)).docs()
        except TaskError:
            assert report.mistakes
    assert outcomes == {True, False}
