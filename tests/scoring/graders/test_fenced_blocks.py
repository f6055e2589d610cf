"""The program that is found in a text, by how it is fenced."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperscale.scoring import graders
from hyperscale.scoring.graders.forms.fenced_blocks import find_blocks

BT, T4 = "```", "````"
CASES = [
    ("python", f"{BT}python\nP\n{BT}", "P\n"),
    ("py", f"{BT}py\nP\n{BT}", "P\n"),
    ("python3", f"{BT}python3\nP\n{BT}", "P\n"),
    ("pypy3", f"{BT}pypy3\nP\n{BT}", "P\n"),
    ("pypy", f"{BT}pypy\nP\n{BT}", "P\n"),
    ("Python", f"{BT}Python\nP\n{BT}", "P\n"),
    ("PYTHON3", f"{BT}PYTHON3\nP\n{BT}", "P\n"),
    ("python 3", f"{BT}python 3\nP\n{BT}", "P\n"),
    ("python3.11", f"{BT}python3.11\nP\n{BT}", "P\n"),
    ("title", f"{BT}python title=x\nP\n{BT}", "P\n"),
    ('title"', f'{BT}python title="sol.py" linenums="1"\nP\n{BT}', "P\n"),
    ("python:sol.py", f"{BT}python:sol.py\nP\n{BT}", "P\n"),
    ("{.python}", BT + "{.python .numberLines}\nP\n" + BT, "P\n"),
    ("{python}", BT + "{python}\nP\n" + BT, "P\n"),
    ("python {hl}", BT + "python {hl_lines=[1]}\nP\n" + BT, "P\n"),
    ("python,ignore", BT + "python,ignore\nP\n" + BT, "P\n"),
    ("space", BT + " python\nP\n" + BT, "P\n"),
    ("trailing space", BT + "python  \nP\n" + BT + "  ", "P\n"),
    ("four", f"{T4}python\nP\n{T4}", "P\n"),
    ("four inner", f"{T4}python\ns='''\n{BT}\nx\n{BT}\n'''\n{T4}", "s='''\n```\nx\n```\n'''\n"),
    ("tilde", "~~~python\nP\n~~~", "P\n"),
    ("tilde with backticks", "~~~python\n# ```\nP\n~~~", "# ```\nP\n"),
    ("crlf", f"{BT}python\r\nA\r\nP\r\n{BT}\r\n", "A\nP\n"),
    ("text behind", f"{BT}python\nP\n{BT} This is the program.", "P\n"),
    ("text behind2", f"{BT}python\nP\n{BT}\n\nIt works.\n", "P\n"),
    ("text behind3", f"{BT}python\nP\n{BT}.", "P\n"),
    ("text behind word", f"{BT}python\nP\n{BT} Done", "P\n"),
    ("text behind **", f"{BT}python\nP\n{BT}**Explanation**: x", "P\n"),
    ("text behind that names a language", f"{BT}python\nP\n{BT} Output: 6\n\nPython is fine.", "P\n"),
    ("text behind that begins with python", f"{BT}python\nP\n{BT} Python runs this.", "P\n"),
    ("unclosed, then with attributes", f"{BT}python\nA\n{BT}python title=x\nP\n{BT}", "P\n"),
    ("unclosed, then a file's name", f"{BT}python\nA\n{BT}python:sol.py\nP\n{BT}", "P\n"),
    ("unclosed cpp", f"{BT}cpp\nA\n\n{BT}python\nP\n{BT}", "P\n"),
    ("a comment with a fence", f"{BT}python\n# {BT}\nP\n{BT}", f"# {BT}\nP\n"),
    ("end of line", f"{BT}python\nA\nP{BT}", "A\nP\n"),
    ("unclosed first", f"{BT}python\nA\n\nBetter:\n{BT}python\nP\n{BT}", "P\n"),
    ("unclosed first py", f"{BT}\nA\n\nBetter:\n{BT}python\nP\n{BT}", "P\n"),
    ("unclosed last", f"{BT}python\nP\n{BT}\nor\n{BT}python\nA", "P\n"),
    ("indented", f"1. So:\n   {BT}python\n   A\n   P\n   {BT}\n", "A\nP\n"),
    ("indented, content not", f"   {BT}python\nA\n  P\n   {BT}\n", "A\nP\n"),
    ("content deeper", f"{BT}python\n    A\n    P\n{BT}\n", "A\nP\n"),
    ("indented tab", f"\t{BT}python\n\tA\n\t\tP\n\t{BT}\n", "A\n\tP\n"),
    ("closing indented", f"{BT}python\nA\n  {BT}\n", "A\n"),
    ("list item", f"- {BT}python\n  A\n  {BT}\n", "A\n"),
    ("quoted", f"> {BT}python\n> A\n>\n>   P\n> {BT}\n", "A\n\n  P\n"),
    ("behind words", f"Here it is: {BT}python\nP\n{BT}", "P\n"),
    ("two", f"{BT}python\nA\n{BT}\n{BT}python\nP\n{BT}", "P\n"),
    ("then output", f"{BT}python\nP\n{BT}\nprints\n{BT}\n6\n{BT}", "P\n"),
    ("then text", f"{BT}python\nP\n{BT}\nprints\n{BT}text\n6\n{BT}", "P\n"),
    ("cpp only", f"{BT}cpp\nP\n{BT}", None),
    ("bare", f"{BT}\nP\n{BT}", "P\n"),
    ("bare title", f"{BT}title=x\nP\n{BT}", "P\n"),
    ("pycon", f"{BT}pycon\nA\n{BT}\n{BT}\nP\n{BT}", "P\n"),
    ("empty", f"{BT}python\n{BT}", ""),
    ("inline", f"use {BT}python{BT} here\n{BT}python\nP\n{BT}", "P\n"),
    ("inline first", f"{BT}x = 1{BT}\n{BT}python\nP\n{BT}", "P\n"),
    ("docstring fence", f'{BT}python\nx = "{BT}"\nP\n{BT}', f'x = "{BT}"\nP\n'),
    ("blank lines", f"{BT}python\n\n\nP\n\n{BT}", "\n\nP\n\n"),
    ("none", "no program", None),
    (
        "starter then",
        "Start:\n" + f"{BT}python\nclass S: ...\n{BT}\n\nFull:\n\n{BT}python\nP\n{BT}\n\n### Complexity\n{BT}O(n){BT}",
        "P\n",
    ),
    ("longer close", f"{BT}python\nP\n{T4}", "P\n"),
]


@pytest.mark.parametrize(("name", "text", "program"), CASES, ids=[case[0] for case in CASES])
def test_the_program_in_a_text(name, text, program):
    assert graders.get("livecodebench").extract("```python\nthinking\n```</think>" + text) == program
    python_only = program if "bare" not in name and name != "pycon" else None
    assert graders.get("code").extract("thinking</think>" + text) == python_only


@given(st.text(alphabet="`~ \n\r>-1.python3=x\t{}", max_size=80))
def test_no_text_is_an_error(text):
    for block in find_blocks(text):
        assert "\r\n" not in block.content


PIECES = ["```", "```python", "~~~", "> ", "- ", "1. ", "a```", "   ", "```\n", "```py\n", "x ```py\n"]
PIECES += ["a=b ", "a=b,", "a=b:", "a=", "{", ",,"]


@pytest.mark.timeout(60)  # quadratic time would be hours
@pytest.mark.parametrize("piece", PIECES)
def test_text_that_repeats_itself_takes_linear_time(piece):
    list(find_blocks(piece * (400_000 // len(piece))))
    list(find_blocks("```\n```python " + piece * (400_000 // len(piece)) + " !"))
    list(find_blocks("```\n" + piece * (400_000 // len(piece)) + "```"))
