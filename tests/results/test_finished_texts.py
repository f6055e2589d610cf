"""A box that is never closed is an answer where the model ended the text, and none where L cut it off."""

from dataclasses import replace

from synthetic_samples import sample

from hyperscale.results import grading
from hyperscale.scoring import graders

TEXT = "thinking</think>so \\boxed{73"


def answers(made):
    return grading.extract_answers(graders.get("integer"), made)


def with_text(made, text=TEXT):
    cuts = [replace(cut, chars=len(text)) for cut in made.cuts]
    return replace(made, text=text, cuts=tuple(cuts))


def test_only_the_whole_of_a_chain_that_ended_is_finished():
    assert answers(with_text(sample(tokens=300))) == [None, "73"]
    assert answers(with_text(sample(tokens=3000, L=512))) == [None, None]


def test_a_closed_box_counts_where_the_text_is_cut_off_in_a_later_one():
    text = "</think>\\boxed{41}, no, \\boxed{42"
    assert answers(with_text(sample(tokens=300), text)) == ["41", "42"]
