"""Verdicts of functions of the user's own: what is equal to true or false is one, and all else is refused."""

import pytest

from hyperscale.errors import TaskError
from hyperscale.scoring.graders.function import FunctionGrader


def grade(folder, verdict, imports):
    (folder / "own.py").write_text(f"{imports}\n\ndef grade(answer, target):\n    return {verdict}\n")
    return FunctionGrader("own:grade", folder).correct("2", "2")


@pytest.mark.parametrize(
    ("verdict", "right", "imports"),
    [
        ("True", True, ""),
        ("0", False, ""),
        ("np.float64(2) == 2", True, "import numpy as np"),
        ("np.array(3) == 2", False, "import numpy as np"),
        ("sympy.Eq(sympy.sympify(answer), 2)", True, "import sympy"),
        ("sympy.Eq(sympy.sympify(answer), 3)", False, "import sympy"),
    ],
)
def test_truth_values_are_verdicts(tmp_path, verdict, right, imports):
    assert grade(tmp_path, verdict, imports) is right


@pytest.mark.parametrize(
    ("verdict", "imports"),
    [
        ("None", ""),
        ("0.5", ""),
        ("'yes'", ""),
        ("np.array([True, False])", "import numpy as np"),
        ("pd.NA", "import pandas as pd"),
        ("sympy.Eq(sympy.Symbol('x'), 2)", "import sympy"),
    ],
)
def test_what_is_neither_true_nor_false_is_refused(tmp_path, verdict, imports):
    with pytest.raises(TaskError, match=r"grader own:grade returns .* it must return true or false"):
        grade(tmp_path, verdict, imports)
