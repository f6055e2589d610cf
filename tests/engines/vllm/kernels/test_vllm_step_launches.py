"""Layers of a step that share launches: the kernels are compiled, for Hopper, and a driver notes how they are launched.

Triton's interpreter, which other tests of kernels run in, compiles nothing, so nothing is repeated there.
"""

import json
import os
import subprocess
import sys

import pytest
from repository import ROOT

pytest.importorskip("triton", reason="triton is not installed")

ALL = {"plan", "attention", "write", "append"}
# By what layers 1 and 2 have otherwise than layer 0: what layer 1 cannot repeat, and what has to be compiled for it.
SEARCHED = {
    "alike": set(),
    "alignment": {"attention", "write", "append"},
    "stride": {"attention", "write", "append"},
    "type": {"plan"},
    "log sums": {"attention"},
    "window and scale": set(),
    "tables": ALL,
    "cache": {"attention", "write", "append"},
    "chunks": ALL,
    "counts": {"plan"},
    "plan": {"plan", "attention", "write"},
    "known expiries": {"plan", "attention", "write"},
}
COMPILED = {
    "alignment": {"attention", "write", "append"},
    "type": {"plan"},
    "log sums": {"attention"},
    "known expiries": {"plan"},
}


@pytest.fixture(scope="module")
def noted(tmp_path_factory):
    """What the program found out."""
    cache = str(tmp_path_factory.mktemp("triton"))
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": cache}
    program = ROOT / "tests" / "helpers" / "vllm" / "layer_launches.py"
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def by_kernel(launches):
    found = {launch["kernel"].removeprefix("_chunk_").removesuffix("_kernel"): launch for launch in launches}
    assert len(launches) == len(found)
    assert set(found) == ALL
    return found


def searched(launches):
    """For which kernels Triton searched."""
    return {name for name, launch in by_kernel(launches).items() if launch["bound"]}


def without_search(launches):
    return {name: {**launch, "bound": None, "tensors": None} for name, launch in by_kernel(launches).items()}


@pytest.mark.parametrize("name", SEARCHED)
def test_a_layer_is_launched_as_it_would_be_anew(noted, name):
    """The same compiled kernel, grid, tensors and numbers; and the first tensor is not another layer's."""
    steps = noted["steps"]
    assert set(steps) == set(SEARCHED)
    of_layer = ALL - {"plan"} if name == "known expiries" else ALL  # those are of all layers
    earlier = []
    for layer in steps[name]:
        assert searched(layer["anew"]) == ALL
        anew = without_search(layer["anew"])
        assert without_search(layer["shared"]) == anew
        assert all(
            anew[kernel]["arguments"][0] != other[kernel]["arguments"][0] for other in earlier for kernel in of_layer
        )
        earlier.append(anew)
    assert len(earlier) == 3


@pytest.mark.parametrize("name", SEARCHED)
def test_a_kernel_is_searched_for_where_layers_differ(noted, name):
    """Once: layer 2 is like layer 1."""
    found = [searched(layer["shared"]) for layer in noted["steps"][name]]
    assert found == [ALL, SEARCHED[name], set()]


@pytest.mark.parametrize("name", SEARCHED)
def test_a_layer_gets_a_kernel_compiled_for_its_tensors(noted, name):
    first, second, third = (by_kernel(layer["shared"]) for layer in noted["steps"][name])
    compiled = {kernel for kernel in ALL if second[kernel]["function"] != first[kernel]["function"]}
    assert compiled == COMPILED.get(name, set())
    assert all(third[kernel]["function"] == second[kernel]["function"] for kernel in ALL)


@pytest.mark.parametrize("name", SEARCHED)
def test_the_driver_is_asked_about_no_tensor_of_a_repeated_launch(noted, name):
    for layer in noted["steps"][name]:
        for launch in (*layer["shared"], *layer["anew"]):
            assert (launch["tensors"] > 0) == launch["bound"]


def test_plans_are_aligned_and_lengths_share_kernels(noted):
    """Of 900 and 4094 to 4096 tokens, of 2 and 3 heads, of one to three requests."""
    lengths = noted["lengths"]
    assert len(lengths["past"]) == 24
    for sizes, past in lengths["past"].items():
        assert len(past) == 9
        assert not any(past.values()), (sizes, past)
    assert sorted(lengths["first"]) == sorted(f"_chunk_{kernel}_kernel" for kernel in ALL)
    assert lengths["others"] == []


def test_steps_share_the_launches_around_their_layers(noted):
    """Triton searches for the kernels in the first step alone; later ones launch them with numbers of their own."""
    seen = []
    for number, step in enumerate(noted["around"]):
        assert [launch["kernel"] for launch in step["shared"]] == ["_table_changes_kernel", "_step_report_kernel"]
        assert [launch["bound"] for launch in step["shared"]] == [not number] * 2
        for shared, anew in zip(step["shared"], step["anew"], strict=True):
            assert anew["bound"]
            assert [shared[key] for key in ("function", "grid")] == [anew[key] for key in ("function", "grid")]
            different = [a == b for a, b in zip(shared["arguments"], anew["arguments"], strict=True)].count(False)
            # The step's own tensors, of which each launch has got others.
            assert different == (1 if shared["kernel"] == "_table_changes_kernel" else 2)
        seen.append([launch["arguments"] for launch in step["shared"]])
    assert all(seen[0][kernel] != seen[1][kernel] != seen[2][kernel] for kernel in range(2))
