"""What the templates and keys of a user's own tasks make of the values of a row: kinds, gaps, ids, names."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hyperscale import tasks
from hyperscale.errors import TaskError
from hyperscale.tasks.own_check import check_file


def write(folder, *rows, **keys):
    """A task of these rows, with some keys changed."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = {"task": "own", "data": "rows.jsonl", "prompt": "{{q}}", "answer": "a", "grader": "contains"} | keys
    path = folder / "own.yaml"
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items() if value is not None))
    return path


def targets(path):
    return [doc.target for doc in tasks.load(str(path)).docs()]


def test_a_template_of_one_expression_may_give_several_answers(tmp_path):
    row = {"q": "two rivers", "a": ["Seine ", "Loire"], "n": 5}
    for answer in ("{{a}}", "{{- a -}}\n", "{{ a if n else [] }}"):
        assert targets(write(tmp_path, row, answer=answer)) == [["Seine ", "Loire"]]
    assert targets(write(tmp_path, row, answer="{{ a | map('trim') }}")) == [["Seine", "Loire"]]
    assert targets(write(tmp_path, row, answer="{{n}}")) == ["5"]  # in a text, as ever
    assert targets(write(tmp_path, row, answer="{{a[0]}}and {{a[1]}}")) == ["Seine and Loire"]


def test_a_template_may_give_the_place_of_an_option(tmp_path):
    def letters(answer, options, key):
        row = {"q": "which?", "options": options, "key": key}
        path = write(tmp_path, row, prompt="{{q}}\n{{choices}}", choices="options", answer=answer, grader=None)
        (doc,) = tasks.load(str(path)).docs()
        return re.search(rf"{doc.target}\. (.*)", doc.prompt)[1]

    assert letters("{{key - 1}}", ["x", "y", "z"], 1) == "x"
    assert letters("{{key - 1}}", ["x", "y", "z"], 3) == "z"
    assert letters("{{key}}", ["2", "1", "0"], 0) == "0"  # an option's text comes first
    with pytest.raises(TaskError, match="answer: 3 is none of the options"):
        letters("{{key}}", ["x", "y", "z"], 3)


def test_nothing_is_not_asked_as_a_word(tmp_path):
    rows = [{"q": "one?", "hint": "h", "a": "x"}, {"q": "two?", "hint": None, "a": "x"}]
    path = write(tmp_path, *rows, prompt="{{q}} {{hint}}")
    message = r"rows.jsonl line 2: prompt of own cannot be rendered: 'hint' is empty: fill it in"
    with pytest.raises(TaskError, match=message):
        tasks.load(str(path)).docs()
    assert re.search(message, check_file(path).mistakes[0])
    path = write(tmp_path, *rows, prompt="{{q}}{% if hint %} {{hint}}{% endif %}{{ hint or '!' }}")
    assert [doc.prompt for doc in tasks.load(str(path)).docs()] == ["one? hh", "two?!"]
    path = write(tmp_path, {"q": "?", "a": {"b": None}}, answer="{{a.b}}")
    with pytest.raises(TaskError, match=r"line 1: answer cannot be rendered: .* is empty"):
        tasks.load(str(path)).docs()


@pytest.mark.parametrize(("value", "fault"), [(float("nan"), "'q' is empty"), (b"x", "'q' is bytes and no text")])
def test_what_a_table_holds_that_is_no_text_is_not_asked(tmp_path, value, fault):
    pq.write_table(pa.Table.from_pylist([{"q": value, "a": "x"}]), tmp_path / "rows.parquet")
    with pytest.raises(TaskError, match=fault):
        tasks.load(str(write(tmp_path, data="rows.parquet"))).docs()


def test_a_generator_may_give_ids(tmp_path):
    (tmp_path / "make.py").write_text(
        "def make(number, rng):\n    return {'q': f'q{number}', 'a': 'x', 'name': f'n-{number}', 'same': 'n'}\n"
    )
    keys = {"data": None, "generator": "make:make", "problems": 3}
    assert [doc.id for doc in tasks.load(str(write(tmp_path, **keys))).docs()] == ["0-0", "0-1", "0-2"]
    assert [doc.id for doc in tasks.load(str(write(tmp_path, id="name", **keys))).docs()] == ["n-0", "n-1", "n-2"]
    with pytest.raises(TaskError, match=r"problem 0 and make:make problem 1 have the same id 'n': give them ids"):
        tasks.load(str(write(tmp_path, id="same", **keys))).docs()


def test_names_and_keys_that_are_taken_for_something_else(tmp_path):
    path = write(tmp_path, {"q": "?", "a": "x"}, task="own.yaml")
    assert "line 1: task must not end in .yaml or .yml: --task would take it" in check_file(path).mistakes[0]
    path.write_text("task: own.yml\ndataset_path: json\ntest_split: test\ndoc_to_text: q\ndoc_to_target: a\n")
    assert "line 1: task must not end in .yaml or .yml" in check_file(path).mistakes[0]
    for key, kind in (("on", "true or false"), ("null", "nothing"), ("1", "a number")):
        path = write(tmp_path, {"q": "?", "a": "x"})
        path.write_text(path.read_text() + f"{key}: 5\n")
        assert check_file(path).mistakes == [f"{path}, line 6: YAML takes the key {key} for {kind}: put it in quotes"]
