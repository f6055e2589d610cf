"""Problems that a user brings are checked before anything is generated: the message has file, row and fault."""

import json
import re

import checkpoints
import commandline
import pandas as pd
import public_data_rows
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hyperscale import tasks
from hyperscale.errors import TaskError
from hyperscale.tasks.target_checks import check_target

AIME, MATH, GPQA = public_data_rows.AIME[0], public_data_rows.MATH[0], public_data_rows.GPQA[0]
LCB = {**public_data_rows.BY_TASK["livecodebench"][0], "contest_date": "2024-09-01"}
GIVEN = {"id": "x", "prompt": "2+2=?", "target": "4"}
CODE = {"id": "x", "prompt": "f", "target": [{"input": 1, "output": 2}]}
MISSING = object()


def cases(task, row, **wrong):
    return [(task, row, column, value) for column, values in wrong.items() for value in values]


NO_TEXT = [None, "", "   ", MISSING, ["x"], {"x": 1}, True, 7]
NO_ANSWER = [None, "", "  ", MISSING, "nan", ["3"], {"a": 1}, True, "\ud800"]
WRONG = [
    *cases("aime24", {**AIME, "solution": ""}, problem=NO_TEXT, answer=[*NO_ANSWER, 1.5, "1.5", -3, "-3", 1000, "x"]),
    *cases("aime25", {**AIME, "solution": ""}, answer=["1/2", "10^3", "12 apples", 1e300]),
    *cases("aime24", AIME, id=[["x"], {"a": 1}, "\udfff"]),
    *cases("math500", {**MATH, "solution": ""}, problem=NO_TEXT, answer=[v for v in NO_ANSWER if v != "\ud800"]),
    *cases("math500", MATH, problem=["half \ud83d", "\udc00"], answer=["None", "n/a", "null", "NaN"]),
    *cases("aime24", {**AIME, "solution": ""}, answer=["1" * 5000, 10**600]),
    *cases(
        "math500", {**MATH, "solution": ""}, answer=["$", "$$", "{}", ".", "\\", "~", "\0", r"\boxed{}", r"\text{ }"]
    ),
    *cases("math500", {**MATH, "solution": ""}, answer=["\ud83d", r"\( \)", r"\frac{1}{", r"\sqrt{2", "3}"]),
    *cases("aime24", AIME, Problem=["another"]),
    *cases("gpqa_diamond", GPQA, Question=NO_TEXT, **{"Record ID": ["\ud800"], "correct_answer": ["another"]}),
    *cases("gpqa_diamond", GPQA, **{"Incorrect Answer 1": [GPQA["Correct Answer"]]}),
    *cases("gpqa_diamond", GPQA, **{"Correct Answer": [None, "", " ", MISSING, ["A"], True]}),
    *cases("gpqa_diamond", GPQA, **{"Incorrect Answer 2": [None, "", MISSING, {"x": 1}]}),
    *cases("mini_gpqa", GIVEN | {"target": "A"}, target=["Z", "E", "AB", "1", 3, None, "", ["A"], True, MISSING]),
    *cases("mini_aime", GIVEN, target=["1.5", 1.5, "x", "", None, [4], True, {"a": 1}, MISSING], prompt=NO_TEXT),
    *cases("mini_lcb", CODE, target=["4", [], {}, [1], [{"input": 1}], [{"output": 1}], [None], MISSING, 3]),
    *cases("livecodebench", LCB, question_content=NO_TEXT, question_id=[None, "", MISSING, ["x"]]),
    *cases(
        "livecodebench",
        LCB,
        public_test_cases=[
            '[{"input": null, "output": null}]',
            None,
            "",
            MISSING,
            "[",
            "{}",
            "5",
            [],
            '[{"input": "1"}]',
            "[[" * 9000,
        ],
        private_test_cases=[None, "", MISSING, "!", "AAAA", "[1]", '[{"input": 1}]', 5],
        metadata=[MISSING, "{", "[]", 5, *(json.dumps({"func_name": name}) for name in ("", "f g", "f\ng", 5, ["f"]))],
    ),
]


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(("task", "row", "column", "value"), WRONG)
def test_a_row_that_cannot_be_asked_or_graded_is_refused(tmp_path, task, row, column, value):
    wrong = {**row, column: value} if value is not MISSING else {k: v for k, v in row.items() if k != column}
    other = {**row, **({"question_id": "other"} if task == "livecodebench" else {"id": "other", "Record ID": "other"})}
    assert len(tasks.load(task).docs(data=write(tmp_path / "right.jsonl", other))) == 1
    path = write(tmp_path / "data.jsonl", other, wrong)
    with pytest.raises(TaskError) as error:
        tasks.load(task).docs(data=path)
    assert f"{path} line 2" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ('{"problem": "p", "answer": NaN}', "line 1 is not JSON (NaN is no value of JSON)"),
        ('{"problem": "p", "answer": -Infinity}', "-Infinity is no value of JSON"),
        ('{"problem": "p", "answer": 1, "answer": 2}', "the key 'answer' stands twice"),
        ('{"problem": "p", "answer": 1', "line 1 is not JSON"),
        ("[" * 100_000, "line 1 is not JSON"),
        ('"text"', "is not a JSON object"),
        ("", "holds no rows"),
    ],
)
def test_lines_that_are_no_rows(tmp_path, lines, fault):
    (tmp_path / "data.jsonl").write_text(lines)
    with pytest.raises(TaskError) as error:
        tasks.load("aime24").docs(data=str(tmp_path / "data.jsonl"))
    assert fault in str(error.value)


def test_the_same_id_twice_is_refused(tmp_path):
    path = write(tmp_path / "data.jsonl", AIME, {**AIME, "problem": "another"})
    with pytest.raises(TaskError, match="have the same id '60'"):
        tasks.load("aime24").docs(data=path)


def test_what_tables_hold_where_nothing_is_is_no_answer(tmp_path):
    for column, value in (("answer", float("nan")), ("problem", None), ("answer", 2.5)):
        table = pd.DataFrame([{"problem": "p", "answer": 3.0}, {"problem": "q", "answer": 3.0, column: value}])
        table.to_parquet(tmp_path / "data.parquet")
        with pytest.raises(TaskError, match="row 2"):
            tasks.load("aime24").docs(data=str(tmp_path / "data.parquet"))
    pd.DataFrame([{"problem": "p", "answer": 3.0}]).to_parquet(tmp_path / "data.parquet")
    assert tasks.load("aime24").docs(data=str(tmp_path / "data.parquet"))[0].target == "3"


def test_a_gap_in_a_column_of_a_table_is_nothing(tmp_path):
    rows = [{"problem": "p", "answer": "3", "year": 2024.0}, {"problem": "q", "answer": "4", "year": float("nan")}]
    table = pa.Table.from_pylist([{**row, "expected_answer": float("nan")} for row in rows])  # pandas would write nulls
    pq.write_table(table, tmp_path / "data.parquet")
    docs = tasks.load("math500").docs(data=str(tmp_path / "data.parquet"))
    assert [doc.target for doc in docs] == ["3", "4"]


def test_a_level_in_strange_digits_is_no_level(tmp_path):
    levels = {"²": None, "Level 4": 4, 4.0: 4, 4.5: None, -3.0: None, 5: 5}  # 4.0: of a column with gaps
    rows = [{**MATH, "level": level, "unique_id": str(level)} for level in levels]
    path = write(tmp_path / "data.jsonl", *rows)
    assert [doc.level for doc in tasks.load("math500").docs(data=path)] == list(levels.values())


def test_keys_may_be_written_as_people_do():
    for grader, target in (("choice", " b "), ("integer", 73.0), ("integer", "073"), ("math", 3), ("math", "x")):
        check_target(grader, target)
    answers = (r"\{1, 2\}", r"\left\{1\right.", r"\infty", "∅", "°", r"\text{(C)}", r"50\%", r"\boxed{5}", r"a \\ {b}")
    for answer in answers:
        check_target("math", answer)
    for answer in ("\\begin{pmatrix}\n1 \\\\ 2\n\\end{pmatrix}", "x = 5,\ny = 6", "two\nhours"):
        check_target("math", answer)
    check_target("choice", "E", options=5)


def test_a_solution_is_no_answer(tmp_path):
    """GSM8K's own rows: no answer in a box is the same. The message has what takes the answer out of them."""
    rows = [
        {"question": "p", "answer": "He has 3+2=<<3+2=5>>5.\n#### 5"},
        {"question": "q", "answer": "12*2=<<12*2=24>>24\n#### 24"},
    ]
    path = write(tmp_path / "data.jsonl", *rows)
    with pytest.raises(TaskError, match=r"line 1: its answer .* holds a solution: keep what follows ####") as error:
        tasks.load("math500").docs(data=path)
    (tmp_path / "own.yaml").write_text(
        'task: own\ndata: data.jsonl\ngrader: math\nprompt: "{{question}}"\n'
        + re.search("`(answer: .*)`", str(error.value))[1]
    )
    assert [doc.target for doc in tasks.load(str(tmp_path / "own.yaml")).docs()] == ["5", "24"]
    for answer in ("#### 5", "The answer is 5.", "He has three and two.\nSo it is 5"):
        with pytest.raises(TaskError, match="keep what"):
            check_target("math", answer)


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_prompt_that_the_tokenizer_cannot_write_stops_the_run(monkeypatch, capsys, tmp_path, options):
    """The built-in vocabulary has no emoji: it would stand as padding, and the model would be asked something else."""
    weights = checkpoints.write(tmp_path / "weights", crs=())
    right = tasks.load("mini_aime").docs(1)[0]
    rows = [{"id": "a", "prompt": right.prompt, "target": right.target}]
    path = write(tmp_path / "data.jsonl", *rows, {"id": "b", "prompt": right.prompt + " 🙂", "target": "4"})
    capsys.readouterr()
    call = commandline.caller(monkeypatch, capsys, tmp_path)
    result = call("run", "--model", weights, "--task", "mini_aime", "--data", path, "--budget", "0.1x", *options)
    commandline.fails(result, f"{path} line 2", "cannot write '🙂' of its prompt")
    result = call(
        "run", "--model", weights, "--task", "mini_aime", "--system-prompt", "🙂", "--budget", "0.1x", *options
    )
    commandline.fails(result, "--system-prompt", "cannot write '🙂'")
    assert not (tmp_path / "results").exists()
