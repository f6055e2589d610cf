"""A training that several processes share gives what one gives, but for rounding; here two of them, on the CPU."""

import json
import os
import subprocess
import sys

import pytest
import sharded_training
import torch

from hyperscale.errors import RetrofitError
from hyperscale.retrofit.parallel.ranks import Ranks
from hyperscale.retrofit.settings import Recipe
from hyperscale.retrofit.trainer import Retrofit

pytestmark = pytest.mark.e2e

RECIPE = {"crs": (2.0, 3.0), "steps_per_unit": 8, "hard_steps": (3,), "window": 4, "accumulate": 4, "gate_lr": 1e-2}
GATES = {**RECIPE, "hard_steps": (0,), "train": "gates"}


def share(tmp_path, recipe, dtype="float32", frugal=True, count=2):
    """What so many processes make of a recipe."""
    out = tmp_path / f"{count}.pt"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    arguments = [sharded_training.__file__, out, json.dumps(recipe), dtype, str(frugal)]
    ended = subprocess.run(
        [*launcher, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return torch.load(out, weights_only=False)


@pytest.mark.parametrize(
    ("recipe", "frugal"), [(RECIPE, True), (RECIPE, False), (GATES, True)], ids=["all", "all at once", "gates"]
)
def test_two_processes_train_as_one(tmp_path, recipe, frugal):
    start = sharded_training.build_model(0, **sharded_training.SMALL, initializer_range=0.06).state_dict()
    alone = sharded_training.train(Recipe(**recipe), Ranks(), torch.float32, frugal)
    shared = share(tmp_path, recipe, frugal=frugal)
    assert len(alone) == len(shared) == 2
    for (log, tokens, check, state), (other_log, other_tokens, other_check, other_state), close in zip(
        alone, shared, (1e-3, 0.1), strict=True
    ):
        assert tokens == other_tokens
        assert other_check == pytest.approx(check, rel=close)
        assert [entry["step"] for entry in log] == [entry["step"] for entry in other_log]
        assert other_log[0]["kl"] == pytest.approx(log[0]["kl"], rel=1e-4)
        assert state.keys() == other_state.keys()
    # Rounding grows: weights that differ by 1e-7 at the start are as far apart at the second checkpoint as these.
    state, other_state = alone[0][3], shared[0][3]
    for name in start:
        moved = (state[name] - start[name]).norm()
        assert (state[name] - other_state[name]).norm() <= 0.01 * moved, name
    first, second = (made[3] for made in shared)
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert moved
    assert recipe is RECIPE or all("dms_proj_alpha." in name for name in moved)


def test_bfloat16_weights_are_sharded_too(tmp_path):
    """Stochastic rounding draws in each process, so only what is learned is alike."""
    alone = sharded_training.train(Recipe(**RECIPE), Ranks(), torch.bfloat16)
    shared = share(tmp_path, RECIPE, "bfloat16")
    for made, other in zip(alone, shared, strict=True):
        assert other[2] == pytest.approx(made[2], rel=0.2, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"accumulate": 3}, "--accumulate 3 batches a step do not divide among 2 GPUs"),
        ({"gate": "borrowed"}, "several GPUs train gates with a projection of their own"),
    ],
)
def test_what_cannot_be_shared_is_refused(changes, reason):
    with pytest.raises(RetrofitError, match=reason):
        Retrofit(
            sharded_training.build_model(0, **sharded_training.SMALL),
            Recipe(**{**RECIPE, **changes}),
            ranks=Ranks(0, 2),
        )
