r"""Graders: find the answer in a chain's text, and say whether it is right.

Each grader understands one form of answer; task files name it. All of them look only at what follows the last
``</think>``:

- ``integer``: what is equal to an integer, in the last ``\boxed{}`` (AIME).
- ``math``: any answer in the last ``\boxed{}``, compared by what it says (MATH-500).
- ``choice``: the letter of the last ``Answer: X`` (GPQA).
- ``code``: function ``f`` of the last ``python`` block, run on hidden tests (the built-in tasks).
- ``livecodebench``: the program of the last ``python`` block, else of the last bare one, run on LiveCodeBench's tests.
- ``contains``: the text, if it contains all of several texts (context tasks).

A task of a user's own may name a function instead (`function`). `likelihood` reads no text: it chooses among options
by the likelihood that the model gives them.

`base` is the contract: ``extract`` gives the text that is voted on, ``correct`` compares it with the target; awkward
text is a wrong answer, never an error. `registry` maps names to graders. Then one file a grader, and helpers:
`forms` (where answers stand in a text, and how they are written), `maths` (whether two mathematical answers are one),
`output_match` (compares a program's output), `livecodebench_tests` and `restricted_pickle` (LiveCodeBench's data).
docs/graders.md lists the awkward cases.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.scoring.graders.base import Grader as Grader
    from hyperscale.scoring.graders.registry import get as get
    from hyperscale.scoring.graders.registry import select_program_graders as select_program_graders

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base": ["Grader"],
        "registry": ["get", "select_program_graders"],
    },
)
