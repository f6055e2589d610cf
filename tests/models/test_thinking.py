"""Where a text's answer begins: by what the prompt and the text opened, for the marks of all families."""

import pytest

from hyperscale.models import thinking
from hyperscale.models.thinking import TABLE
from hyperscale.scoring import graders

BOX = r"The answer is \boxed{42}."
#: A finished text of each family, as models write it.
FAMILIES = {
    "DeepSeek-R1, opened by the prompt": ("<think>", f"\nHm, \\boxed{{1}}?\n</think>\n\n{BOX}"),
    "Qwen3": ("", f"<think>\nHm, \\boxed{{1}}?\n</think>\n\n{BOX}"),
    "Qwen3 without thinking": ("", f"<think>\n\n</think>\n\n{BOX}"),
    "Magistral": ("", f"[THINK]Hm, \\boxed{{1}}?[/THINK]{BOX}"),
    "gpt-oss": (
        "",
        "<|channel|>analysis<|message|>Hm, \\boxed{1}?<|end|><|start|>assistant<|channel|>final<|message|>" + BOX,
    ),
    "gpt-oss, other special tokens left out": (
        "",
        f"<|channel|>analysis<|message|>Hm, \\boxed{{1}}?assistant<|channel|>final<|message|>{BOX}",
    ),
    "Sky-T1": (
        "",
        f"<|begin_of_thought|>Hm, \\boxed{{1}}?<|end_of_thought|>\n<|begin_of_solution|>{BOX}<|end_of_solution|>",
    ),
    "a format with <reasoning>": ("", f"<reasoning>\nHm, \\boxed{{1}}?\n</reasoning>\n<answer>{BOX}</answer>"),
    "in capitals": ("", f"<Thinking>\nHm, \\boxed{{1}}?\n</Thinking>\n{BOX}"),
    "EXAONE Deep": ("<thought>", f"\nHm, \\boxed{{1}}?\n</thought>\n\n{BOX}"),
    "Kimi": ("", f"◁think▷Hm, \\boxed{{1}}?◁/think▷{BOX}"),
    "Seed-OSS": ("", f"<seed:think>Hm, \\boxed{{1}}?</seed:think>{BOX}"),
    "Command A": ("<|START_THINKING|>", f"Hm, \\boxed{{1}}?<|END_THINKING|><|START_RESPONSE|>{BOX}"),
    "Granite 3.2": ("", f"Here is my thought process: Hm, \\boxed{{1}}?\n\nHere's my response: {BOX}"),
    "no marks at all": ("", f"Hm, \\boxed{{1}}? No. {BOX}"),
    "a prompt that is not known": ("", f"Hm, \\boxed{{1}}?\n</think>\n\n{BOX}"),
}


def answer(text):
    return graders.get("integer").extract(text)


@pytest.mark.parametrize(("opened", "text"), FAMILIES.values(), ids=FAMILIES)
def test_the_answer_is_what_follows_the_thinking(opened, text):
    assert answer(opened + text) == "42"


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - {"no marks at all", "Qwen3 without thinking"}))
def test_a_thinking_that_was_opened_and_cut_off_has_no_answer(name):
    opened, text = FAMILIES[name]
    cut = opened + text[: text.index("}?") + 2]
    known = name != "a prompt that is not known"
    assert answer(cut) == (None if known else "1")
    assert thinking.state(cut) == ("open" if known else "none")


@pytest.mark.parametrize("marks", TABLE, ids=lambda marks: marks.opening)
def test_every_pair_of_the_table_opens_and_closes(marks):
    assert thinking.open_marks(f"{marks.opening} a") is marks
    assert thinking.answer_text(f"{marks.opening} a {marks.closing}b") == "b"
    assert thinking.state(f"{marks.opening}{marks.closing}") == "closed"
    # What is inserted to close it does so.
    assert thinking.state(f"{marks.opening} a{marks.insertion}") == "closed"
    assert thinking.ends_in_mark(f"{marks.opening} a{marks.closing}")
    assert not thinking.ends_in_mark(f"{marks.opening} a{marks.closing}.")


def test_only_its_own_mark_closes_a_thinking():
    assert thinking.answer_text("<think>I write <reasoning>x</reasoning> and [/THINK]") is None
    assert thinking.answer_text("<think>I write <reasoning>x</think>b") == "b"


def test_a_second_thinking_counts_as_the_first():
    assert answer(r"<think>a</think>\boxed{41}<think>b</think>\boxed{42}") == "42"
    assert answer(r"<think>a</think>\boxed{41}<think>b \boxed{42}") is None


@pytest.mark.parametrize(
    "text",
    [
        r"Models write `<think>` first. \boxed{42}",
        r"Models write `<think>` first and `</think>` last. \boxed{42}",
        "\\boxed{42}\n```python\nre.sub('<think>.*?</think>', '', s)\n```\n",
        r'The tag "<think>" opens it. \boxed{42}',
        r"So: here is my thought process: none. \boxed{42}",
        r"\boxed{42} Here is my response: yes.",
    ],
)
def test_marks_that_a_text_only_speaks_of_open_nothing(text):
    assert answer(text) == "42"


@pytest.mark.parametrize("piece", ["`<think>`", "```<think>", "<think></think>", "[THINK]", "Here is my response:"])
def test_time_grows_with_the_length_of_the_text(piece):
    """In the square of it, this would take minutes."""
    thinking.answer_text(piece * (400_000 // len(piece)))


@pytest.mark.parametrize(
    ("tokens", "pair"),
    [
        (["<|think_start|>", "<|think_end|>", "<|im_end|>"], ("<|think_start|>", "<|think_end|>")),
        (["<|begin_of_reasoning|>", "<|end_of_reasoning|>"], ("<|begin_of_reasoning|>", "<|end_of_reasoning|>")),
        (["<my:thinking>", "</my:thinking>"], ("<my:thinking>", "</my:thinking>")),
        (["<think>", "</think>"], None),  # in the table
        (["/think", "/no_think"], None),
        (["<|thinking|>", "<|im_end|>"], None),
        ([], None),
    ],
)
def test_marks_of_a_tokenizers_own(tokens, pair):
    assert thinking.marks_of_tokens(tokens) == pair
    if pair:
        text = thinking.in_table_marks(rf"{pair[0]}\boxed{{1}}{pair[1]}\boxed{{42}}", pair)
        assert answer(text) == "42"
