"""A small retrofit in one process of several: ``torchrun … sharded_training.py OUT RECIPE-JSON DTYPE FRUGAL``."""

import itertools
import json
import sys

import torch
from checkpoints import SMALL

from hyperscale.mini.model import build_model
from hyperscale.retrofit.gate_check import check_gates
from hyperscale.retrofit.packing import TrainingBatch
from hyperscale.retrofit.parallel.ranks import Ranks, join_ranks, leave_ranks
from hyperscale.retrofit.parallel.sharding import gather_state
from hyperscale.retrofit.settings import Recipe
from hyperscale.retrofit.trainer import Retrofit


def batch(seed, rows=2, length=48):
    ids = torch.randint(0, 64, (rows, length), generator=torch.Generator().manual_seed(seed))
    position = torch.arange(length).expand(rows, length).contiguous()
    kind = torch.zeros_like(ids)
    kind[:, -1] = -1
    return TrainingBatch(ids, position, torch.zeros_like(ids), kind, (kind >= 0).float())


def train(recipe, ranks, dtype=None, frugal=True):
    """Of each checkpoint: its log, tokens, check on held-out text, and on the first process its weights."""
    model = build_model(0, **SMALL, initializer_range=0.06)
    device = torch.device("cpu")
    retrofit = Retrofit(model, recipe, report=lambda _: None, dtype=dtype, frugal=frugal, ranks=ranks, device=device)
    found = []
    for made in retrofit.run(map(batch, itertools.count())):
        check = check_gates(retrofit, [batch(-1), batch(-2)])
        state = {name: tensor.clone() for name, tensor in gather_state(made.model, ranks, torch.float32).items()}
        found.append((made.log, made.tokens, (check.hard, check.noisy, check.alpha), state))
    return found


if __name__ == "__main__":
    out, recipe, dtype, frugal = sys.argv[1:]
    ranks, _ = join_ranks("cpu")
    assert ranks != Ranks()
    found = train(Recipe(**json.loads(recipe)), ranks, getattr(torch, dtype), frugal == "True")
    if ranks.is_first:
        torch.save(found, out)
    leave_ranks()
