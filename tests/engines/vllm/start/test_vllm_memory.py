"""Memory for the cache, measured on a GPU that others use too."""

import inspect
from types import SimpleNamespace

import pytest
from vllm_engines import needs_vllm

from hyperscale.engines.vllm.worker.memory import DISTURBED, measure_undisturbed

GIB = 2**30
TOTAL, WEIGHTS, WORKSPACE, REQUESTED = 140 * GIB, 10 * GIB, GIB, 100 * GIB


class Snapshot:
    """As vLLM's ``MemorySnapshot``: of a GPU where others hold ``others[0]`` bytes, and this process what is told."""

    def __init__(self, others):
        self.others, self.total_memory = others, TOTAL
        self.held_by_torch = self.held_otherwise = 0
        self.measure()

    def measure(self):
        self.torch_memory = self.held_by_torch
        self.free_memory = TOTAL - self.others[0] - self.held_by_torch - self.held_otherwise
        self.cuda_memory = self.total_memory - self.free_memory
        self.non_torch_memory = self.cuda_memory - self.torch_memory


def worker_among(others):
    """A worker that has loaded its weights; the memory of others falls with every measurement, as ``others`` says."""
    snapshot = Snapshot(others)
    snapshot.held_by_torch = WEIGHTS
    return SimpleNamespace(init_snapshot=snapshot)


def measure(worker):
    """As ``determine_available_memory`` of vLLM 0.26: what was asked for less weights and what came on top."""
    before, after = worker.init_snapshot, Snapshot(before_others := worker.init_snapshot.others)
    if len(before_others) > 1:
        del before_others[0]  # others have given memory back
    before.held_otherwise = after.held_otherwise = WORKSPACE
    after.held_by_torch = WEIGHTS
    after.measure()
    assert before.free_memory >= after.free_memory, f"{DISTURBED}. Initial free memory {before.free_memory}"
    return REQUESTED - WEIGHTS - (after.non_torch_memory - before.non_torch_memory)


def test_a_quiet_gpu_is_measured_once():
    assert measure_undisturbed(measure, worker_among([20 * GIB])) == REQUESTED - WEIGHTS - WORKSPACE


def test_memory_that_others_gave_back_meanwhile_is_not_taken_for_ones_own():
    worker = worker_among([60 * GIB, 20 * GIB])
    assert measure_undisturbed(measure, worker) == REQUESTED - WEIGHTS
    assert worker.init_snapshot.free_memory == TOTAL - 20 * GIB - WORKSPACE
    assert measure_undisturbed(measure, worker_among([80 * GIB, 50 * GIB, 20 * GIB])) == REQUESTED - WEIGHTS


def test_a_gpu_that_does_not_come_to_rest_ends_the_start():
    with pytest.raises(AssertionError, match=DISTURBED):
        measure_undisturbed(measure, worker_among([100 * GIB, 80 * GIB, 50 * GIB, 20 * GIB]))


def test_another_assertion_is_let_through():
    asked = []

    def fail(worker):
        asked.append(worker)
        raise AssertionError("another")

    with pytest.raises(AssertionError, match="another"):
        measure_undisturbed(fail, worker_among([0]))
    assert len(asked) == 1


@needs_vllm
def test_vllm_says_what_is_looked_for():
    from vllm.utils.mem_utils import MemorySnapshot
    from vllm.v1.worker import gpu_worker

    assert DISTURBED in inspect.getsource(gpu_worker.Worker.determine_available_memory)
    assert {"free_memory", "cuda_memory", "torch_memory", "non_torch_memory"} <= MemorySnapshot.__annotations__.keys()
