"""Rows in the columns of the public data sets; every question is invented."""

import base64
import json
import pickle
import zlib

AIME = [
    {
        "id": 60,
        "problem": "What is $3^5$?",
        "solution": r"It is \boxed{243}.",
        "answer": "243",
        "url": "",
        "year": "2024",
    },
    {"id": 61, "problem": "What is $7+0$?", "solution": r"\boxed{007}", "answer": "007", "url": "", "year": "2024"},
]
MATH = [
    {
        "problem": r"Simplify $\frac{6}{8}$.",
        "solution": r"Divide: $\boxed{\frac{3}{4}}$",
        "answer": r"\frac{3}{4}",
        "subject": "Prealgebra",
        "level": 2,
        "unique_id": "test/prealgebra/1.json",
    },
    {
        "problem": "Factor $x^2-1$.",
        "solution": r"$\boxed{(x-1)(x+1)}$",
        "answer": "(x-1)(x+1)",
        "subject": "Algebra",
        "level": 1,
        "unique_id": "test/algebra/2.json",
    },
]
GPQA = [
    {
        "Pre-Revision Question": "An early draft",
        "Question": f"An invented instrument number {n} counts photons behind a narrow slit; which law holds?\n",
        "Correct Answer": f"The law of slit {n} ",
        "Incorrect Answer 1": "No law",
        "Incorrect Answer 2": "The second law",
        "Incorrect Answer 3": "The third law",
        "Explanation": "It is invented.",
        "Subdomain": "Optics",
        "High-level domain": "Physics",
        "Record ID": f"recInvented{n}",
    }
    for n in range(40)
]


def packed(cases):
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def _program(number, date, kind, cases, **more):
    cases = [{"input": i, "output": o, "testtype": kind} for i, o in cases]
    return {
        "question_title": f"Invented {number}",
        "question_content": f"Problem {number}: print the sum.",
        "platform": "atcoder",
        "question_id": f"inv{number}",
        "contest_id": "inv",
        "contest_date": f"{date}T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(cases[:1]),
        "private_test_cases": packed(cases[1:]),
        "metadata": "{}",
        **more,
    }


SUMS = [("1 2\n", "3\n"), ("4 5\n", "9\n"), ("0 0\n", "0\n")]
PROGRAMS = [
    _program(1, "2024-07-31", "stdin", SUMS),
    _program(2, "2024-08-01", "stdin", SUMS),
    _program(
        3,
        "2025-01-31",
        "functional",
        [("1\n2", "3"), ("4\n5", "9")],
        platform="leetcode",
        difficulty="hard",
        starter_code="class Solution:\n    def add(self, a: int, b: int) -> int:\n        ",
        metadata='{"func_name": "add"}',
    ),
    _program(4, "2025-02-01", "stdin", SUMS),
    _program(5, "2024-10-01", "stdin", SUMS, question_id="abc350_c"),
]
BY_TASK = {"aime24": AIME, "aime25": AIME, "math500": MATH, "gpqa_diamond": GPQA, "livecodebench": PROGRAMS}


def write(path, rows):
    """A JSONL or Parquet file, by the path's suffix."""
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
