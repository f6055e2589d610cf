"""Methods against their slow references in `reference_rules`: one row of `ROWS` a method.

Each example is a random model, prompts of different lengths batched together, and the method's settings. Compared are
the logits of every step, what lives in every row entry for entry, and the ledger's reads and peak, exactly.
"""

import os

import pytest
import tiny
from engine_probe import prompts
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from method_matrix import ROWS, compare

from hyperscale import methods

#: A method, its parameters, query heads that share a KV head, and a seed that makes no decision close.
LONG = [
    ("tova", {"cr": 4.0}, 4, 9),
    ("h2o", {"cr": 4.0}, 4, 6),
    ("quest", {"cr": 4.0, "page": 4, "dense_layers": 1}, 4, 4),
    ("quest", {"cr": 2.0, "page": 1, "dense_layers": 1}, 1, 2),  # pages of one key have bounds below 0
]
MODELS = {
    "layers": st.integers(1, 2),
    "kv_heads": st.sampled_from([1, 2, 3]),
    "group": st.sampled_from([1, 2, 4]),
    "head_dim": st.sampled_from([4, 8, 16]),
    "seed": st.integers(0, 1000),
}
#: A fifth of the examples is enough while one works; CI draws half of them, and the slow tests all.
SHARE = 2 if os.environ.get("CI") else 5
LENGTHS = st.lists(st.tuples(st.integers(1, 70), st.integers(1, 45)), min_size=1, max_size=4)


def agrees(name, share):
    row = ROWS[name]

    @settings(max_examples=row.examples // share, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
    @given(
        st.fixed_dictionaries({"family": st.sampled_from(row.families), **MODELS}),
        LENGTHS,
        st.integers(1, 5),
        st.fixed_dictionaries(row.params),
    )
    def check(shape, lengths, batch_size, params):
        shape = dict(shape)
        heads = shape["kv_heads"] * shape.pop("group")
        model = row.rule.prepare(tiny.model(**shape, heads=heads, width=32, ff=48), shape["seed"])
        items = prompts(lengths, 63, shape["seed"])
        assume(compare(model, methods.create(name, **params), row.rule, batch_size, items))

    check()


@pytest.mark.parametrize("name", ROWS)
def test_agrees_with_its_reference(name):
    agrees(name, SHARE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_agrees_in_more_examples(name):
    agrees(name, 1)


@pytest.mark.parametrize(("name", "params", "heads", "seed"), LONG)
def test_agrees_over_many_decisions(name, params, heads, seed):
    """Examples with many decisions have a close one, as a rule, and are given up above."""
    model = tiny.model(layers=2, kv_heads=1, heads=heads, width=32, ff=48, seed=seed)
    items = prompts([(30, 45), (9, 45), (54, 20)], 63, seed)
    assert compare(model, methods.create(name, **params), ROWS[name].rule, 2, items)
