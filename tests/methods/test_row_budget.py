"""The row budget: the same for numbers and for tensors, and without torch."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyperscale.methods.core.row_budget import budget_floor, row_budget

COUNT = st.integers(0, 2**31)


def test_by_hand():
    assert budget_floor("proportional", 4, 10, 1000) == 10
    assert budget_floor("fixed", 4, 10, 41) == 11
    assert budget_floor("fixed", 4, 12, 41) == 12
    assert [row_budget("proportional", 4, 10, tokens) for tokens in (1, 40, 41)] == [10, 10, 11]
    assert row_budget("fixed", 4, 10, 41) == 10


@pytest.mark.parametrize("rule", ["proportional", "fixed"])
@given(cr=st.floats(1, 100), always=COUNT, total=COUNT, tokens=COUNT)
def test_tensors_round_as_numbers_do(rule, cr, always, total, tokens):
    floor = budget_floor(rule, cr, always, total)
    floors = budget_floor(rule, cr, torch.tensor([always]), torch.tensor([total]))
    assert floors.tolist() == [floor]
    assert row_budget(rule, cr, floors, torch.tensor([tokens])).tolist() == [row_budget(rule, cr, floor, tokens)]


def test_needs_no_torch():
    code = "import sys, hyperscale.methods.core.row_budget; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
