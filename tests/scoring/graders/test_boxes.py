import pytest

from hyperscale.scoring.graders.forms.boxes import last_box

ANY = (True, False, None)
CASES = [
    # text, whether it is finished, content
    (r"\boxed{73}", ANY, "73"),
    (r"\fbox{73}", ANY, "73"),
    (r"\framebox{73}", ANY, "73"),
    (r"\bbox[5px, border: 2px solid]{73}", ANY, "73"),
    (r"\boxed {73}", ANY, "73"),
    (r"\\boxed{73}", ANY, "73"),
    (r"a\\\boxed{73}", ANY, "73"),
    (r"\boxed{\boxed{73}}", ANY, r"\boxed{73}"),
    (r"\boxed{\{73\}}", ANY, r"\{73\}"),
    (r"\boxed{1}, then \boxed{2}", ANY, "2"),
    (r"\boxed{1}, then \boxed{}", ANY, ""),
    (r"\unboxed{73}", ANY, None),
    (r"boxed{73}", ANY, None),
    (r"\boxedup{73}", ANY, None),
    # without braces
    (r"\boxed 73", (True, None), "73"),
    (r"\boxed 73", (False,), None),  # there may have been more digits
    (r"\boxed 73.", ANY, "73"),
    (r"\boxed73.", ANY, "73"),
    (r"$\boxed 1,234$", ANY, "1,234"),
    (r"\boxed -5 ", ANY, "-5"),
    (r"\boxed\frac{146}{2}$", ANY, r"\frac{146}{2}"),
    (r"\boxed\text{C} ", ANY, r"\text{C}"),
    (r"\boxed C.", ANY, "C"),
    (r"The \boxed notation, \boxed a letter", ANY, None),
    (r"\boxed 4x", ANY, None),
    (r"\boxed 1,23x ", ANY, None),
    (r"\boxed{1} or \boxed 2.", ANY, "2"),
    # never closed
    (r"so \boxed{73", (True, None), "73"),
    (r"so \boxed{73", (False,), None),
    (r"$$\boxed{73$$", (True, None), "73$$"),
    (r"so \boxed{\frac{146}{2", (True,), r"\frac{146}{2}"),
    (r"so \boxed{\frac{146}{2", (None, False), None),  # if that is not known, it looks cut off
    (r"so \boxed{\boxed{73", (True, None), "73"),
    (r"so \boxed{\boxed{73}", ANY, "73"),
    (r"\boxed{1}, then \boxed{2", (True,), "2"),
    (r"\boxed{1}, then \boxed{2", (False, None), "1"),
    ("\\boxed{73\n\nThis follows from the lemma.", ANY, None),
    (r"\boxed{" + "7" * 1000, ANY, None),
    (r"so \boxed{", ANY, None),
    (r"so \boxed{73)", (True, None), "73"),
    (r"so \(\boxed{73\)", (True, None), r"73\)"),
    (r"so **\boxed{73**", (True, None), "73"),
    (r"so \boxed{73<|im_end|>", (True, None), "73"),
    (r"so \boxed{73</s>", (True, None), "73"),
    ("\\boxed{n15 n86 cum sub n76 n111 n03", (True,), "n15 n86 cum sub n76 n111 n03"),
    ("\\boxed{n15 n86 cum sub n76 n111 n03", (None, False), None),
    ("{{{ \\boxed{42}", ANY, "42"),
]


@pytest.mark.parametrize(
    ("text", "finished", "content"), [(text, one, content) for text, states, content in CASES for one in states]
)
def test_the_box_that_ends_last(text, finished, content):
    assert last_box(text, finished=finished) == content


@pytest.mark.timeout(60)  # quadratic time would be hours
@pytest.mark.parametrize("piece", ["\\boxed{", "\\boxed ", "\\boxed 1,2", "\\boxed[", "{", "\\boxed\\a{", "\\boxed$("])
@pytest.mark.parametrize("finished", ANY)
def test_text_that_repeats_itself_takes_linear_time(piece, finished):
    last_box(piece * (400_000 // len(piece)), finished=finished)
    last_box(piece + " " * 400_000, finished=finished)
