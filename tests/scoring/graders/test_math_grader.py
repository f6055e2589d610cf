import json
import os
import select
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from repository import SHARED

from hyperscale.errors import TaskError
from hyperscale.scoring.graders.math import MAX_CHARS, MathGrader
from hyperscale.scoring.graders.maths import process as math_process
from hyperscale.scoring.graders.maths.latex import write_plain, write_readable
from hyperscale.scoring.graders.maths.process import MathVerifier


@pytest.fixture(scope="module")
def verifier():
    verifier = MathVerifier(seconds=1.0)
    yield verifier
    verifier.close()


@pytest.fixture
def grader(verifier):
    return MathGrader(verifier)


CASES = [
    (r"\frac{14}{3}", "14/3", True),
    (r"\frac{14}{3}", r"\dfrac{14}{3}", True),
    (r"\frac{14}{3}", r"4\frac{2}{3}", True),
    (r"\frac34", "0.75", True),
    (r"\frac13", "0.33", False),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\pi/2)", True),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(\pi/2,3)", False),
    (r"1,-2", "-2, 1", True),
    (r"1,-2", "1", False),
    (r"x^3+3x-6", "3x + x^3 - 6", True),
    ("p - q", "q - p", False),
    ("6 - 5i", "-5i+6", True),
    (r"(-\infty, 2) \cup (3, \infty)", r"(3,\infty)\cup(-\infty,2)", True),
    (r"(-\infty, 2)", r"(-\infty, 2]", False),
    (r"\begin{pmatrix} -18 \\ -49 \\ 96 \end{pmatrix}", r"\begin{pmatrix}-18\\-49\\96\end{pmatrix}", True),
    (r"90^\circ", "90", True),
    (r"10\%", "10", True),
    (r"5.4 \text{ cents}", "5.4", True),
    (r"\$18.90", "18.90", True),
    (r"11,\! 111,\! 111,\! 100", "11111111100", True),
    ("x=5", "5", True),
    ("5", "x=5", True),
    ("5x-7y+11z+4=0", "-5x+7y-11z-4=0", True),
    (r"2516_8", "2516_8", True),
    (r"\text{Evelyn}", "Evelyn", True),
    (r"\text{Evelyn}", r"\text{Briana}", False),
    (r"\text{June 20}", "June 20", True),
    ("June 20", r"\textbf{June 20}.", True),
    (r"\text{June 20}", r"\text{June 2}", False),
    (r"\frac13", "0.333333333", True),
    (r"\text{(C)}", "C", True),
    (r"\text{even}", r"\text{odd}", False),
    ("3", "three", False),
    ("3", r"\frac{3}{", None),
    ("3", "}{", None),
    ("1", "", None),
]


@pytest.mark.parametrize(("gold", "answer", "verdict"), CASES)
def test_answers_are_compared_as_mathematics(grader, gold, answer, verdict):
    found = grader.extract(f"thought</think>\\boxed{{{answer}}}")
    assert (found is not None and grader.correct(found, gold)) is bool(verdict)
    assert (found is None) is (verdict is None)


def test_only_a_box_after_the_thinking_counts(grader):
    assert grader.extract(r"\boxed{1}</think>1") is None
    assert grader.extract(r"<think>\boxed{1}") is None
    assert grader.extract(r"x</think>\boxed{1} or \boxed{\frac{1}{2}}") == r"\frac{1}{2}"


def test_what_only_looks_different_is_one_text():
    forms = (
        r"\left(1,\ \dfrac{1}{2}\right)",
        r"(1, \frac{1}{2})",
        r"$(1,\,\frac12)$.",
        r"\bigl({1},{1\over2}\bigr)",
        "（1，½）",
    )
    assert {write_plain(form) for form in forms} == {r"(1,\frac{1}{2})"}
    assert write_plain(r"\text{ even}") == write_plain(r"\textbf{even}")
    assert write_plain(r"\pi r") != write_plain(r"\pir")
    assert write_plain(r"2\mathrm{i}") == "2i"
    assert write_plain("1 2") == "1 2"


CASES_FILE = Path(__file__).with_name("math_cases.jsonl")
AWKWARD = SHARED / "awkward_answers.jsonl"


def judged_otherwise(grader, rows):
    """Rows of (text, target, right) that the grader does not judge as they say."""
    wrong = []
    for text, target, right in rows:
        answer = grader.extract(text, finished=True)
        if (answer is not None and grader.correct(answer, target)) is not right:
            wrong.append((target, text, right))
    return wrong


def test_every_case_is_judged_as_it_says():
    """Right and wrong answers of every kind: docs/graders.md has the rules behind them."""
    cases = [json.loads(line) for line in CASES_FILE.read_text(encoding="utf-8").splitlines()]
    rows = [(f"x</think>\\boxed{{{case['answer']}}}", case["target"], case["right"]) for case in cases]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a guard that refuses would warn
        assert judged_otherwise(MathGrader(), rows) == []


def test_equality_is_symmetric_where_an_answer_could_be_a_target(grader):
    cases = [json.loads(line) for line in CASES_FILE.read_text(encoding="utf-8").splitlines()][::7]
    for case in cases:
        if case["right"]:
            first, second = write_plain(case["target"]), write_plain(case["answer"])
            assert grader.equal_many([(first, second), (second, first)]) == [True, True], case


def test_plain_answers_stay_as_they_are():
    """What is stored can be graded again: writing it plainly once more changes nothing."""
    for line in CASES_FILE.read_text(encoding="utf-8").splitlines():
        for text in (json.loads(line)["target"], json.loads(line)["answer"]):
            stored = write_readable(write_plain(text))
            assert write_readable(write_plain(stored)) == stored, text


@pytest.mark.skipif(not AWKWARD.is_file(), reason="the shared data are not here")
def test_the_shared_awkward_answers_are_judged_as_they_say():
    rows = [json.loads(line) for line in AWKWARD.read_text(encoding="utf-8").splitlines()]
    rows = [(row["text"], row["target"], row["right"]) for row in rows if row["grader"] == "math"]
    assert rows
    assert judged_otherwise(MathGrader(), rows) == []


# Each would take a naive grader down, run code, or never end.
BOMBS = ["9^{9^{9^{9}}}", "(10^8)!", "((((" * 200 + "1"]


@pytest.mark.parametrize("bomb", BOMBS)
def test_an_answer_without_end_is_wrong_within_the_limit(verifier, monkeypatch, bomb):
    monkeypatch.setattr(verifier, "seconds", 0.4)
    assert verifier.compare([("1", "1.0")]) == [True]
    start = time.monotonic()
    assert verifier.compare([("1", bomb)]) == [False]
    assert time.monotonic() - start < 2 * verifier.seconds + 1 + 2
    assert verifier.compare([("0.5", r"\frac{1}{2}")]) == [True]


def test_a_list_of_answers_without_end_is_given_up_at_the_first(verifier, monkeypatch):
    """Not each pair of items has the limit on time, but the answer has."""
    monkeypatch.setattr(verifier, "seconds", 0.4)
    bombs = ",".join(f"x+9^{{9^{{9^{{{i}}}}}}}" for i in range(9, 29))
    asked = []
    compare = verifier.compare
    monkeypatch.setattr(verifier, "compare", lambda pairs: asked.append(pairs) or compare(pairs))
    assert not MathGrader(verifier).correct(bombs, bombs.replace("x", "y"))
    assert len(asked) == 1


def test_lists_that_pair_in_too_many_ways_are_given_up(monkeypatch):
    asked = []
    monkeypatch.setattr(MathVerifier, "compare", lambda _, pairs: asked.extend(pairs) or [False] * len(pairs))
    letters = "abcdefghjklmnopqrstuvwxyz"
    first = ",".join(f"{a}+{b}" for a in letters for b in "uv")
    assert not MathGrader().correct(first, first.replace("+", "-"))
    assert len(asked) <= 200


def test_long_answers_are_wrong_unread(grader, monkeypatch):
    monkeypatch.setattr(MathVerifier, "compare", lambda *_: pytest.fail("a long answer was sent to math-verify"))
    answer = grader.extract(r"x</think>\boxed{" + "1+" * MAX_CHARS + "1}")
    assert len(answer) == MAX_CHARS + 1
    assert not grader.correct(answer, "7")
    assert not grader.correct(answer, answer)


EVALUATED = [
    "__import__('os').system('touch MARK')",
    "eval(\"open('MARK','w')\")",
    "[c for c in ().__class__.__base__.__subclasses__()]",
    r"\text{__import__('os').system('touch MARK')}",
    r"\mathrm{open('MARK','w')}",
    "lambda: open('MARK','w')",
]


@pytest.mark.parametrize("text", EVALUATED)
def test_text_is_never_evaluated(verifier, tmp_path, text):
    text = text.replace("MARK", str(tmp_path / "mark"))
    assert verifier.compare([("1", text), ("1", "1.0")]) == [False, True]
    assert not (tmp_path / "mark").exists()


def test_the_worker_refuses_to_evaluate_whoever_asks():
    """SymPy's own way from text to numbers is ``eval``: in the worker it reads decimal numbers and nothing else."""
    worker = Path(math_process.__file__).with_name("worker.py")
    code = f"""
import runpy, sys
worker = runpy.run_path({str(worker)!r})
import sympy
worker["_read_numbers_only"]()
assert sympy.sympify("12") == 12 and sympy.sympify("-1.5e1") == -15.0
for text in ("1+1", "x", "__import__('os')", "print(1)"):
    try:
        sympy.sympify(text)
    except Exception:
        continue
    sys.exit("evaluated " + text)
sys.addaudithook(worker["_no_evaluation"])
compiles = lambda: compile("1", "x", "eval")
for attempt in (lambda: eval("1"), lambda: exec("1"), compiles, lambda: __import__("os").system("true")):
    try:
        attempt()
    except PermissionError:
        continue
    sys.exit("not refused")
import colorsys
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_equal_pairs_are_compared_once(grader, monkeypatch):
    asked = []
    monkeypatch.setattr(MathVerifier, "compare", lambda _, pairs: asked.extend(pairs) or [False] * len(pairs))
    assert grader.correct_many([("x", "y"), ("x", "y"), ("y", "y")]) == [False, False, True]
    assert grader.correct("x", "y") is False
    assert asked == [("y", "x")]


def test_a_dead_or_stopped_worker_is_replaced():
    verifier = MathVerifier(seconds=0.4)
    try:
        assert verifier.compare([("1/2", "0.5")]) == [True]
        os.kill(verifier._process.pid, signal.SIGKILL)
        assert verifier.compare([("1/2", "0.5")]) == [True]
        os.kill(verifier._process.pid, signal.SIGSTOP)
        assert verifier.compare([("1/2", "0.5")]) == [False]
        assert verifier._process is None
    finally:
        verifier.close()


def test_an_interrupted_comparison_leaves_no_reply_to_the_next(monkeypatch):
    """Ctrl-C in a notebook, while the worker loads and while it compares."""
    verifier = MathVerifier()

    def interrupt(*_):
        raise KeyboardInterrupt

    def compare_interrupted():
        with monkeypatch.context() as patch:
            patch.setattr(select, "select", interrupt)  # the wait for what the worker has been asked for
            with pytest.raises(KeyboardInterrupt):
                verifier.compare([("1", "1.0")])

    try:
        compare_interrupted()
        assert verifier.compare([("1", "2.0"), ("2", "2.0")]) == [False, True]
        worker = verifier._process
        compare_interrupted()
        assert worker.poll() is not None
        assert verifier.compare([("1", "2.0"), ("2", "2.0")]) == [False, True]
    finally:
        verifier.close()


UNGUARDED = """
import json, sys
from math_verify import LatexExtractionConfig, parse, verify
config = (LatexExtractionConfig(),)
for line in sys.stdin:
    trees = [parse("\\\\boxed{" + text + "}", config, parsing_timeout=None) for text in json.loads(line)]
    print(json.dumps(verify(*trees, allow_set_relation_comp=True, timeout_seconds=None)), flush=True)
"""
FORMS = [  # of each row, the answers are equal
    ("(x+1)^2", "x^2+2x+1"),
    (r"\sin 2x", r"2\sin x\cos x"),
    ("12000", r"1.2\times10^4", "12000.0"),
    (r"[3,\infty)", r"x\ge 3", r"3\le x"),
    (r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}", r"\sum_{k=1}^n k"),
    ("x^2+y^2=1", "2x^2+2y^2=2"),
    (r"\frac{x^2-1}{x-1}", "x+1"),
    (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&2+2\end{bmatrix}"),
    (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"),
    ("a+b+c+d+e+f+g", "g+f+e+d+c+b+a"),
    (r"(a+b)(c+d)(f+g)", "acf+acg+adf+adg+bcf+bcg+bdf+bdg"),
    (r"\tan^2 x+1", r"\sec^2 x"),
    (r"10\%", "0.1"),
    ("1<x<2", "(1,2)"),
    (r"\{1,2,3\}", r"\{3,2,1\}"),
    (r"(-1,1)\setminus\{0\}", r"(-1,0)\cup(0,1)"),
    (r"\log_2 6", r"1+\log_2 3"),
    (r"\sum_{k=1}^{\infty}\frac{1}{k^2}", r"\frac{\pi^2}{6}"),
    (r"\lim_{x\to 0}\frac{\sin x}{x}", "1"),
    (r"\int_0^1 x^2 dx", r"\frac{1}{3}"),
]

# What leads SymPy to its own generated code and tables: series, roots without radicals, special functions.
ROUNDABOUT = [
    (r"\sum_{n=0}^{\infty}\frac{2}{2n+1}x^{2n+1}", r"\sum_{n=2}^{\infty}\frac{2}{2n+1}x^{2n+1}"),
    (r"\sum_{n=1}^{\infty}\frac{1}{n^3}", r"\sum_{n=1}^{\infty}\frac{1}{n^5}"),
    (r"\sum_{k=0}^{\infty}\frac{x^{2k}}{(2k)!}", r"\cosh x"),
    (r"\sum_{n=1}^{\infty}\frac{1}{n 2^n}", r"\ln 2"),
    (r"\sum_{k=0}^{n}\binom{n}{k}", "2^n"),
    (r"\prod_{k=1}^n k", "n!"),
    ("x^5-x+1=0", "x^5-x+2=0"),
    ("x^5-x+1=0", "2x^5-2x+2=0"),
    ("e^x+x=0", "e^x-x=0"),
    (r"\int e^{-x^2}dx", "1"),
    (r"\int\frac{1}{1+x^2}dx", r"\arctan x"),
    (r"x^3+x+1<0", r"x^3+x+2<0"),
]


@pytest.mark.e2e
def test_the_guards_decide_no_verdict():
    """The worker agrees with math-verify as it is installed, without any guard: forms of one row and of others."""
    forms = [form for row in FORMS for form in row]
    pairs = [(gold, answer) for row in FORMS for gold in row for answer in row]
    pairs += [(forms[i], forms[i - shift]) for shift in (3, 7, 11, 17) for i in range(len(forms))]
    done = subprocess.run(
        [sys.executable, "-c", UNGUARDED],
        input="".join(json.dumps(pair) + "\n" for pair in pairs),
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [line == "true" for line in done.stdout.split()]
    verifier = MathVerifier()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert verifier.compare(pairs) == expected
    finally:
        verifier.close()
    assert len(pairs) > 200
    assert sum(expected) > len(forms)


def test_no_roundabout_way_meets_a_guard(verifier, monkeypatch):
    monkeypatch.setattr(verifier, "seconds", 5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verifier.compare(ROUNDABOUT)
        assert verifier.compare([ROUNDABOUT[7], ROUNDABOUT[3], ROUNDABOUT[1], ROUNDABOUT[6]]) == [
            True,
            True,
            False,
            False,
        ]


def test_a_refusal_of_the_guards_is_seen(tmp_path, monkeypatch):
    """A library that asks for what the guards refuse leads to a warning, not to a silent verdict."""
    source = Path(math_process.__file__).with_name("worker.py").read_text()
    worker = tmp_path / "worker.py"
    worker.write_text(source.replace("result = compare(", "__import__('sympy').sympify('yotta'); result = compare("))
    assert worker.read_text() != source
    monkeypatch.setattr(math_process, "_WORKER", worker)
    verifier = MathVerifier()
    try:
        with pytest.warns(UserWarning, match=r"could not grade '2' against 'x'.*sympify yotta"):
            assert verifier.compare([("2", "x")]) == [False]
    finally:
        verifier.close()


def test_equal_answers_are_equal_in_either_order(grader):
    pairs = [(r"\frac14", "0.25"), ("0.25", r"\frac{1}{4}"), ("x+1", "1+x"), ("5", "x=5"), ("x", "y")]
    assert grader.equal_many(pairs) == [True, True, True, True, False]


def test_a_missing_math_verify_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(math_process, "_WORKER", Path("/nowhere.py"))
    with pytest.raises(TaskError, match="pip install"):
        MathVerifier().compare([("1", "2")])


def test_votes_compare_in_either_order_and_no_expressions_twice(grader, monkeypatch):
    pairs = [("m+n=5", "5"), (r"\frac14", "0.25"), ("(x+1)^2", "x^2+2x+1"), ("12", "012"), ("5", "7"), ("x", "y")]
    expected = [True, True, True, True, False, False]
    assert grader.equal_many(pairs) == expected
    assert grader.equal_many([(second, first) for first, second in pairs]) == expected
    asked = []
    monkeypatch.setattr(MathVerifier, "compare", lambda _, pairs: asked.extend(pairs) or [False] * len(pairs))
    assert grader.equal_many([("x+2", "y+3"), ("y+3", "x+2"), ("x+2", "y+3")]) == [False] * 3
    assert len(asked) == 1
