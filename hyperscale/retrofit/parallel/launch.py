"""Starts this command once more in several processes, one for each device."""

import os
import subprocess
import sys

from hyperscale.errors import RetrofitError


def is_started() -> bool:
    """Whether this process is one of several that ``torchrun`` has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this process is the first of them, or alone."""
    return int(os.environ.get("RANK", "0")) == 0


def launch_ranks(count: int) -> None:
    """Run this process's command line in so many processes of this machine, by ``torchrun``, and wait for them.

    Raises:
        RetrofitError: One of them failed; it has said why.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    ended = subprocess.run([*launcher, "-m", "hyperscale.cli", *sys.argv[1:]], check=False)
    if ended.returncode:
        raise RetrofitError(
            f"one of the {count} processes of the training failed, as it says above: what was written stays"
        )
