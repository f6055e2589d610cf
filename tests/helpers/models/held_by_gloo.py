"""A process of several that is done while threads of gloo hold tensors still: ``torchrun … held_by_gloo.py``."""

import torch

from hyperscale.retrofit.parallel.ranks import join_ranks, leave_ranks

if __name__ == "__main__":
    join_ranks("cpu")
    for _ in range(20):
        held = torch.ones(1 << 20)
        held.owner = object()  # a thread that drops the tensor last has to drop this object of Python
        torch.distributed.all_reduce(held, async_op=True)
        del held
    leave_ranks()
