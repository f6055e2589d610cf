import subprocess
import sys
from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperscale.errors import TaskError
from hyperscale.results.redaction import redact
from hyperscale.scoring import graders
from hyperscale.tasks.choice_order import arrange

WRONG = ("w1", "w2", "w3")


def test_keys_and_orders_are_spread_evenly():
    arrangements = [arrange(f"rec{i:05}", "right", WRONG) for i in range(4800)]
    letters = Counter(arrangement.letter for arrangement in arrangements)
    assert all(abs(letters[letter] - 1200) < 4 * 30 for letter in "ABCD")  # 4 standard deviations
    orders = Counter(arrangement.options for arrangement in arrangements)
    assert set(orders) == set(permutations(("right", *WRONG)))
    assert all(abs(count - 200) < 4.5 * 14 for count in orders.values())


def test_the_order_depends_on_the_id_alone_and_survives_a_restart():
    first, other = arrange("rec1", "right", WRONG), arrange("rec1", "Right answer", ("x", "y", "z"))
    assert first.letter == other.letter
    assert "ABCD"[first.options.index("right")] == first.letter
    code = (
        "from hyperscale.tasks.choice_order import arrange; print(arrange('rec1', 'right', ('w1', 'w2', 'w3')).options)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == str(first.options) == "('w1', 'w3', 'w2', 'right')"


def test_whitespace_is_no_part_of_an_option():
    assert set(arrange("q", " right\n", ("w1\n", " w2", "w3"))[0]) == {"right", *WRONG}


@pytest.mark.parametrize("wrong", [(), ("w",) * 10, ("right ", "w1", "w2")])
def test_unusable_options_are_an_error(wrong):
    with pytest.raises(TaskError, match="question 'q'"):
        arrange("q", "right", wrong)


QUESTION = (
    "Which of the following particles, sent through a thin foil at rest, decays first? x = 5\n"
    "A) the heavy muon of the second family with charge one\nB) an electron\nLast line: Answer: LETTER"
)


def test_what_a_chain_quotes_is_blacked_out_in_place():
    text = (
        "They ask: which of the following particles, sent\nthrough a thin foil at rest, decays first. "
        "It is a muon.</think>Answer: A) The heavy muon of the second family with charge one"
    )
    redaction = redact(text, QUESTION)
    assert len(redaction) == len(text)
    assert (
        "They ask: █████ ██ ███ █████████ █████████, ████\n███████ a ████ ████ ██ ████, ██████ █████. It is a muon."
        in redaction
    )
    assert "heavy" not in redaction
    choice = graders.get("choice")
    assert choice.extract(redaction) == choice.extract(text) == "A"


def test_what_is_not_from_the_question_stays():
    text = "Muons decay in 2.2 microseconds; the second family is heavy. Last line: Answer: B"
    assert redact(text, QUESTION) == text
    assert (
        redact("anything at all, in as many words as you like", "too short")
        == "anything at all, in as many words as you like"
    )


@given(st.text(alphabet="ab AnswerB:\n.", max_size=200), st.text(alphabet="ab Answer:\n.", max_size=200))
def test_redacting_moves_nothing_and_keeps_every_answer(text, question):
    redaction = redact(text, question)
    assert [(a, b) for a, b in zip(redaction, text, strict=True) if a != b and a != "█"] == []
    choice = graders.get("choice")
    assert choice.extract("</think>" + redaction) == choice.extract("</think>" + text)
