"""The matrix of what tests hold equal tells tests that CI runs from those that it leaves out and those of a GPU."""

import equality_matrix
import pytest

HOSTED = "engines/vllm/test_vllm_hosted.py::test_hosted_methods_equal_torch"
INTERPRETED = "engines/vllm/test_vllm_cuda.py"


def test_what_ci_leaves_out_is_read_off_the_marks():
    """Of a module's parameters and of single cases; a method with one case that is not slow is not left out."""
    assert equality_matrix.slow_methods(HOSTED) == {"knorm"}
    assert equality_matrix.slow_methods(f"{INTERPRETED}::test_window_equals_torch") == {"window"}
    assert "dms" not in equality_matrix.slow_methods(f"{INTERPRETED}::test_pages_in_fp8_equal_torch")
    assert "tova" in equality_matrix.slow_methods(f"{INTERPRETED}::test_pages_in_fp8_equal_torch")


def test_tests_of_a_gpu_are_told_by_decorator_and_by_module():
    assert equality_matrix.marked("engines/test_engine_generate.py::test_cuda_agrees_with_cpu", "gpu")
    assert equality_matrix.marked("engines/torch/test_cuda_graphs.py::test_graphs_change_no_chain", "gpu")
    assert not equality_matrix.marked("engines/test_engine_generate.py::test_greedy_equals_transformers", "gpu")
    assert not equality_matrix.marked(f"{INTERPRETED}::test_window_equals_torch", "gpu")  # on the CPU it is interpreted


def test_the_last_record_of_a_method_counts(monkeypatch):
    test = "engines/vllm/gpu/test_vllm_gpu_default.py::test_steered_chains_equal_torch"
    about = ("H200", "vLLM 0.26.0", "2026-11-27", "")
    first = equality_matrix.Record(test, (), "passed", *about)
    second = equality_matrix.Record(test, ("tova",), "failed", *about)
    monkeypatch.setattr(equality_matrix, "records", lambda: (first, second))
    assert [equality_matrix.outcome_of(test, method) for method in ("dms", "tova")] == ["passed", "failed"]
    comparison = equality_matrix.Comparison("steered", (test,))
    assert equality_matrix.word_of(comparison, "tova") == "steered (failed)"
    assert equality_matrix.word_of(comparison, "h2o") is None
    monkeypatch.setattr(equality_matrix, "records", lambda: ())
    assert equality_matrix.word_of(comparison, "tova") == "steered (not run)"


@pytest.mark.parametrize(
    "entry",
    [
        "tests: [engines/vllm/test_vllm_hosted.py::test_hosted_methods_equal_torch]\n  outcome: passed",
        "tests: [engines/test_engine_generate.py::test_cuda_agrees_with_cpu]\n  outcome: fine",
        "tests: [engines/test_engine_generate.py::test_cuda_agrees_with_cpu]\n  outcome: passed\n  methods: [quest]",
    ],
)
def test_a_record_of_what_is_not_there_is_refused(entry, monkeypatch, tmp_path):
    """No test of a GPU, no word of the table, no method of the test."""
    file = tmp_path / "gpu_tests.yaml"
    runs = "runs:\n  one: {card: H200, versions: torch 2.11, written: 2026-11-27}\n"
    file.write_text(f"{runs}records:\n- run: one\n  {entry}\n")
    monkeypatch.setattr(equality_matrix, "OUTCOMES", file)
    with pytest.raises(ValueError, match=r"gpu_tests\.yaml has engines"):
        equality_matrix.records.__wrapped__()
