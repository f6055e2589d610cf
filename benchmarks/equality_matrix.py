"""Write into results/measurements/equality.md which tests hold each method equal to what, by engine and device.

Usage: python benchmarks/equality_matrix.py

That a test covers a method is read off its source: the test is parametrised with the method's name, or has it in its
body. So a method that a test leaves out leaves the table too. Whether CI runs it is read off its marks; what became of
tests that need a GPU is written down in results/measurements/gpu_tests.yaml, by hand.
"""

import ast
import builtins
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard
from unittest.mock import MagicMock

import pytest
import yaml

from hyperscale import methods

ROOT = Path(__file__).parent.parent
DOC = ROOT / "results" / "measurements" / "equality.md"
OUTCOMES = DOC.parent / "gpu_tests.yaml"
START, END = "<!-- matrix -->\n", "<!-- /matrix -->"
OUTCOMES_START, OUTCOMES_END = "<!-- outcomes -->\n", "<!-- /outcomes -->"
WORDS = ("passed", IN_PART := "in part", "failed")
NOT_RUN, SLOW = "not run", "slow"


@dataclass(frozen=True)
class Comparison:
    """One word of the table.

    Attributes:
        word: How the table calls it.
        tests: Its tests, as file (without tests/) and function.
        only: The method, of tests whose source does not name it.
    """

    word: str
    tests: tuple[str, ...]
    only: str = ""


_ENGINE, _CUDA = (f"engines/vllm/test_vllm_{name}.py" for name in ("engine", "cuda"))
_GPU, _GPU_DEFAULT = (f"engines/vllm/gpu/test_vllm_gpu{name}.py" for name in ("", "_default"))
_STATES = "engines/vllm/kernels/test_vllm_kernels_states.py"
COLUMNS = {
    "torch, CPU": (
        Comparison(
            "rule",
            (
                "methods/test_methods_reference.py::test_vanilla",
                "methods/test_methods_reference.py::test_dms",
                "methods/test_methods_reference.py::test_pinned",
                "methods/test_methods_matrix.py::test_agrees_with_its_reference",
            ),
        ),
        Comparison("transformers", ("engines/test_engine_generate.py::test_greedy_equals_transformers",), "vanilla"),
        Comparison("batches", ("engines/test_engine_invariance.py::test_bitwise_the_same_in_any_batch_and_order",)),
        Comparison(
            "recorded", ("engines/torch/test_static_steps.py::test_recorded_steps_give_the_same_chains_and_costs",)
        ),
        Comparison(
            "bits",
            ("kv/test_kv_quantised.py::test_every_method_agrees_with_rounding_each_entry_as_it_is_written",),
        ),
        Comparison(
            "kvpress",
            (
                "engines/kvpress/test_kvpress_scores.py::test_snapkv_scores_and_keeps_what_kvpress_does",
                "engines/kvpress/test_kvpress_scores.py::test_h2o_sums_what_observed_attention_averages",
                "engines/kvpress/test_kvpress_scores.py::test_tova_keeps_what_kvpress_does",
                "engines/kvpress/test_kvpress_scores.py::test_knorm_scores_as_kvpress_does",
            ),
        ),
    ),
    "torch, CUDA": (
        Comparison("graphs", ("engines/torch/test_cuda_graphs.py::test_graphs_change_no_chain",)),
        Comparison("CPU", ("engines/test_engine_generate.py::test_cuda_agrees_with_cpu",)),
        Comparison("rows*", ("engines/torch/test_row_kernels.py::test_a_run_on_the_kernels",)),
    ),
    "vLLM, CPU": (
        Comparison(
            "torch",
            (
                f"{_ENGINE}::test_stock_equals_torch",
                f"{_ENGINE}::test_dms_equals_torch",
                f"{_ENGINE}::test_pinned_rules_equal_torch",
                "engines/vllm/test_vllm_dmc.py::test_dmc_equals_torch",
                "engines/vllm/test_vllm_hosted.py::test_hosted_methods_equal_torch",
            ),
        ),
        Comparison("steered", ("engines/vllm/test_vllm_steering.py::test_steered_chains_equal_torch",)),
        Comparison("arms", ("engines/vllm/test_vllm_arms.py::test_arms_in_turn_equal_engines_of_their_own",)),
        Comparison("fp8", ("engines/vllm/test_vllm_kv_dtypes.py::test_a_run_in_fp8",), "dms"),
    ),
    "vLLM, CUDA, interpreted": (
        Comparison(
            "torch",
            (
                f"{_CUDA}::test_window_equals_torch",
                f"{_CUDA}::test_methods_with_states_of_their_own_equal_torch",
                f"{_CUDA}::test_dmc_equals_torch",
            ),
        ),
        Comparison("mask", (f"{_CUDA}::test_dms_equals_masked_attention",), "dms"),
        Comparison("costs", (f"{_CUDA}::test_random_needs_no_parameters_of_its_own",)),
        Comparison(
            "state*", ("engines/vllm/kernels/test_vllm_kernels_states.py::test_kernels_decide_as_the_state_does",)
        ),
        Comparison(
            "pruning*",
            ("engines/vllm/test_vllm_interval.py::test_layers_and_requests_are_pruned_together_as_one_by_one",),
        ),
        Comparison("fp8", (f"{_CUDA}::test_pages_in_fp8_equal_torch",)),
    ),
    "vLLM, CUDA, on a GPU": (
        Comparison(
            "torch",
            (
                f"{_GPU}::test_float32_equals_torch",
                f"{_GPU}::test_window_equals_torch",
                f"{_GPU}::test_methods_with_states_of_their_own_equal_torch",
                f"{_GPU_DEFAULT}::test_dmc_equals_torch",
            ),
        ),
        Comparison("steered", (f"{_GPU_DEFAULT}::test_steered_chains_equal_torch",)),
        Comparison("fp8", (f"{_GPU}::test_fp8_equals_torch", f"{_GPU}::test_fp8_in_bfloat16_gives_near_probabilities")),
        Comparison("waits", ("engines/vllm/gpu/test_vllm_gpu_device.py::test_nothing_waits_for_the_device",)),
    ),
}


@cache
def definitions(path: Path) -> dict[str, ast.AST | Path]:
    """What a module binds at its top: statements by name, and of a helper's names the helper's file."""
    found: dict[str, ast.AST | Path] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = ast.Tuple([found[node.target.id], node.value])  # what it was and what is added
        elif isinstance(node, ast.ImportFrom) and node.module:
            helpers = list((ROOT / "tests" / "helpers").rglob(f"{node.module}.py"))
            found |= {alias.asname or alias.name: helpers[0] for alias in node.names if helpers}
    return found


def strings(path: Path, node: ast.AST, seen: set[tuple[Path, str]]) -> Iterator[str]:
    """Strings of a piece of source and of the constants that it names; of a mapping its keys alone."""
    if isinstance(node, ast.Compare) or (isinstance(node, ast.keyword) and node.arg == "method"):
        return  # a case apart, and what a helper is told of its reference
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Name) and node.id.isupper() and (path, node.id) not in seen:
        seen.add((path, node.id))
        found = definitions(path).get(node.id)
        if isinstance(found, Path):
            path, found = found, definitions(found).get(node.id)
        if isinstance(found, ast.AST):
            yield from strings(path, found, seen)
    for child in node.keys if isinstance(node, ast.Dict) else ast.iter_child_nodes(node):
        if child is not None:
            yield from strings(path, child, seen)


def covered(test: str) -> set[str]:
    """The methods that a test is parametrised with, or names in its body if with none.

    Raises:
        KeyError: The test is not there.
    """
    path, function = find(test)
    return known(path, function.decorator_list) or known(path, function.body)


def find(test: str) -> tuple[Path, ast.FunctionDef]:
    """A test's file and its definition."""
    file, _, name = test.partition("::")
    path = ROOT / "tests" / file
    function = definitions(path)[name]
    assert isinstance(function, ast.FunctionDef)
    return path, function


def known(path: Path, nodes: Sequence[ast.AST]) -> set[str]:
    """The methods that pieces of source name; of a case like "tova by head" the first word."""
    everything = set(methods.available())
    if any(isinstance(part, ast.Attribute) and part.attr == "available" for node in nodes for part in ast.walk(node)):
        return everything
    words = {re.split(r"[\s,]", string)[0] for node in nodes for string in strings(path, node, set())}
    return words & everything


def marked(test: str, mark: str) -> bool:
    """Whether a test has a mark of pytest's, by itself or by its module."""
    path, function = find(test)
    module = definitions(path).get("pytestmark")
    nodes = [*function.decorator_list, *([module] if isinstance(module, ast.AST) else [])]
    # A mark within the parameters is that of some cases alone.
    nodes = [node for node in nodes if not (isinstance(node, ast.Call) and "parametrize" in ast.unparse(node.func))]
    names = {part.id: definitions(path).get(part.id) for node in nodes for part in ast.walk(node) if is_name(part)}
    nodes += [node for node in names.values() if isinstance(node, ast.AST)]
    return any(isinstance(part, ast.Attribute) and part.attr == mark for node in nodes for part in ast.walk(node))


def is_name(node: ast.AST) -> TypeGuard[ast.Name]:
    """Whether a piece of source is a name."""
    return isinstance(node, ast.Name)


def slow_methods(test: str) -> set[str]:
    """The methods of a test that CI leaves out, as all of their cases are marked slow."""
    if marked(test, "slow"):
        return covered(test)
    path, function = find(test)
    left_out: set[str] = set()
    for node in function.decorator_list:
        if not (isinstance(node, ast.Call) and "parametrize" in ast.unparse(node.func)):
            continue
        names = {part.id for part in ast.walk(node) if is_name(part)}
        if not any("slow" in source for source in sources(path, node, names)):
            continue
        by_slowness: dict[bool, set[str]] = {True: set(), False: set()}
        for case in eval(ast.unparse(node.args[1]), module_values(path)):  # a list of the tests' own
            slow = any(mark.name == "slow" for mark in getattr(case, "marks", ()))
            words = [ast.Constant(value) for value in getattr(case, "values", (case,))]
            by_slowness[slow] |= known(path, words)
        left_out |= by_slowness[True] - by_slowness[False]
    return left_out


def sources(path: Path, node: ast.AST, names: set[str]) -> list[str]:
    """The source of a node and of the module's constants that it names."""
    found = [definitions(path).get(name) for name in names]
    return [ast.unparse(node), *(ast.unparse(each) for each in found if isinstance(each, ast.stmt))]


class Constants(dict[str, Any]):
    """A module's constants; what it imports is anything at all."""

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        return MagicMock()


@cache
def module_values(path: Path) -> dict[str, Any]:
    """The constants of a module, as far as they can be told without its imports; of these pytest alone is there."""
    values: dict[str, Any] = {"pytest": pytest}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            own = Constants(values)
            with suppress(NameError, TypeError):
                exec(compile(ast.Module([node], []), str(path), "exec"), values, own)
                values |= own
    return values


@dataclass(frozen=True)
class Record:
    """What became of a test on a GPU.

    Attributes:
        test: As file (without tests/) and function.
        methods: Those that it ran with; empty for all that it covers.
        outcome: "passed", "in part" or "failed".
        card: The GPU.
        versions: What it ran on.
        written: Day on which the outcome was written down.
        note: What else is known.
    """

    test: str
    methods: tuple[str, ...]
    outcome: str
    card: str
    versions: str
    written: str
    note: str


@cache
def records() -> tuple[Record, ...]:
    """All outcomes, in the order of the file.

    Raises:
        ValueError: One of them is of no test of the table that is marked gpu, of methods that the test does not cover,
            or in words that the table does not know.
    """
    values = yaml.safe_load(OUTCOMES.read_text(encoding="utf-8"))
    found = []
    for entry in values["records"]:
        run, methods = values["runs"][entry["run"]], tuple(entry.get("methods", ()))
        for test in entry["tests"]:
            if test not in gpu_tests() or not set(methods) <= covered(test) or entry["outcome"] not in WORDS:
                raise ValueError(f"{OUTCOMES.name} has {test} of {methods}, {entry['outcome']}: no such thing")
            about = (run["card"], run["versions"], str(run["written"]), entry.get("note", ""))
            found.append(Record(test, methods, entry["outcome"], *about))
    return tuple(found)


def gpu_tests() -> list[str]:
    """The tests of the table that need a GPU, in its order."""
    tests = [test for column in COLUMNS.values() for comparison in column for test in comparison.tests]
    return [test for test in dict.fromkeys(tests) if marked(test, "gpu")]


def outcome_of(test: str, method: str) -> str:
    """What became of a method in a test on a GPU when it was last recorded."""
    found = [each.outcome for each in records() if each.test == test and method in (each.methods or covered(test))]
    return found[-1] if found else NOT_RUN


def word_of(comparison: Comparison, method: str) -> str | None:
    """A comparison's word for a method and what is known of its tests; None if it does not cover the method.

    A word alone is held by a test that CI runs.
    """
    tests = [test for test in comparison.tests if method in ({comparison.only} if comparison.only else covered(test))]
    if not tests:
        return None
    if all(marked(test, "gpu") for test in tests):
        outcomes = {outcome_of(test, method) for test in tests}
        return f"{comparison.word} ({outcomes.pop() if len(outcomes) == 1 else IN_PART})"
    return comparison.word + (f" ({SLOW})" if all(method in slow_methods(test) for test in tests) else "")


def table() -> str:
    """The table in Markdown."""
    lines = ["| method | " + " | ".join(COLUMNS) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    for method in methods.available():
        cells = [
            ", ".join(word for comparison in column if (word := word_of(comparison, method))) or "·"
            for column in COLUMNS.values()
        ]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def outcomes_table() -> str:
    """What became of each test that needs a GPU, in Markdown."""
    lines = ["| test | methods | outcome | card, versions | written |", "|---|---|---|---|---|"]
    for test in gpu_tests():
        name, rest = test.partition("::")[2], covered(test)
        for each in (each for each in records() if each.test == test):
            names = [method for method in methods.available() if method in (each.methods or rest)]
            rest -= set(names)
            outcome = each.outcome + (f": {each.note}" if each.note else "")
            about = f"{each.card}; {each.versions}"
            lines.append(f"| `{name}` | {', '.join(names)} | {outcome} | {about} | {each.written} |")
        if rest:
            names = [method for method in methods.available() if method in rest]
            lines.append(f"| `{name}` | {', '.join(names)} | {NOT_RUN} | | |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """A page with both tables in their places."""
    for start, end, made in ((START, END, table()), (OUTCOMES_START, OUTCOMES_END, outcomes_table())):
        before, rest = text.split(start)
        text = f"{before}{start}{made}{end}{rest.split(end)[1]}"
    return text


def main() -> None:
    """Replace what lies between the marks."""
    DOC.write_text(written(DOC.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
