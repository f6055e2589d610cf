"""The registry: factories by name, and errors that name what there is."""

import json

import pytest

from hyperscale import methods
from hyperscale.errors import MethodError


def test_every_method_describes_itself():
    for name, summary in methods.available().items():
        method = methods.create(name, cr=1)
        assert method.name == name
        assert summary
        assert "\n" not in summary
        assert method.source
        assert method.kind == {"quest": "selector", "dmc": "merger"}.get(name, "evictor")
        assert methods.create(name, **json.loads(json.dumps(method.params()))).params() == method.params()
        assert methods.create(name, cr=1) is not method


def test_methods_are_equal_if_all_their_parameters_are():
    assert methods.create("window", cr=4) == methods.create("window", cr=4)
    assert methods.create("window", cr=4) != methods.create("window", cr=2)
    assert methods.create("window", cr=4) != methods.create("window", cr=4, recent=3)
    assert methods.create("window", cr=4) != methods.create("random", cr=4)


def test_length_invariance_follows_the_rule():
    for name in ("window", "random"):
        assert methods.create(name, cr=4).length_invariant
        assert not methods.create(name, cr=4, rule="fixed").length_invariant


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("dsm", {"cr": 8}, "known methods: vanilla, dms, window, random"),
        ("dms", {"cr": 0.5}, "at least 1"),
        ("dms", {"cr": float("nan")}, "at least 1"),
        ("vanilla", {"cr": 4}, "compresses nothing"),
        ("window", {"cr": 4, "rule": "sideways"}, "proportional"),
        ("window", {"cr": 4, "recent": 0}, "recent"),
        ("window", {"cr": 4, "recent": "x"}, "recent of window must be a whole number, not 'x'"),
        ("window", {"cr": 4, "recent": 1.5}, "recent of window must be a whole number, not 1.5"),
        ("window", {"cr": 4, "recent": float("inf")}, "recent of window must be a whole number, not inf"),
        ("window", {"cr": 4, "recent": True}, "recent of window must be a whole number, not True"),
        ("window", {"cr": 4, "recent": 10**23}, "recent of window must be below 2147483648"),
        ("snapkv", {"cr": 4, "kernel": 1.0}, "kernel of snapkv must be a whole number, not 1.0"),
        ("quest", {"cr": 4, "page": 16.5}, "page of quest must be a whole number, not 16.5"),
        ("h2o", {"cr": 4, "heavy": True}, "heavy of h2o must be a number, not True"),
        ("dms", {"cr": "8"}, "cr of dms must be a number, not '8'"),
        ("random", {"cr": 4, "size": 3}, "no parameter 'size'; it has: cr, rule, recent"),
        ("dms", {"cr": 4, "budget": 3}, "no parameter 'budget'; it has: cr"),
    ],
)
def test_errors(name, params, message):
    with pytest.raises(MethodError, match=message):
        methods.create(name, **params)
