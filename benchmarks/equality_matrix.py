"""Write into results/measurements/equality.md which tests hold each method equal to what, by engine and device.

Usage: python benchmarks/equality_matrix.py

That a test covers a method is read off its source: the test is parametrised with the method's name, or has it in its
body. So a method that a test leaves out leaves the table too.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hyperscale import methods

ROOT = Path(__file__).parent.parent
DOC = ROOT / "results" / "measurements" / "equality.md"
START, END = "<!-- matrix -->\n", "<!-- /matrix -->"


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
_GPU = "engines/vllm/gpu/test_vllm_gpu.py"
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
                f"{_GPU}::test_dmc_equals_torch",
            ),
        ),
        Comparison("steered", (f"{_GPU}::test_steered_chains_equal_torch",)),
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


def covered(comparison: Comparison) -> set[str]:
    """The methods that a comparison's tests are parametrised with, or name in their bodies if with none.

    Raises:
        KeyError: A test is not there.
    """
    names: set[str] = set()
    for test in comparison.tests:
        file, _, name = test.partition("::")
        path = ROOT / "tests" / file
        function = definitions(path)[name]
        assert isinstance(function, ast.FunctionDef)
        names |= known(path, function.decorator_list) or known(path, function.body)
    return {comparison.only} if comparison.only else names


def known(path: Path, nodes: Sequence[ast.AST]) -> set[str]:
    """The methods that pieces of source name; of a case like "tova by head" the first word."""
    everything = set(methods.available())
    if any(isinstance(part, ast.Attribute) and part.attr == "available" for node in nodes for part in ast.walk(node)):
        return everything
    words = {re.split(r"[\s,]", string)[0] for node in nodes for string in strings(path, node, set())}
    return words & everything


def table() -> str:
    """The table in Markdown."""
    lines = ["| method | " + " | ".join(COLUMNS) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    by_column = [[(each.word, covered(each)) for each in column] for column in COLUMNS.values()]
    for method in methods.available():
        cells = [", ".join(word for word, names in column if method in names) or "·" for column in by_column]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Replace what lies between the marks."""
    before, rest = DOC.read_text(encoding="utf-8").split(START)
    DOC.write_text(f"{before}{START}{table()}{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
