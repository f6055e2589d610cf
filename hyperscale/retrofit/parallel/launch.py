"""Starts a command once more in several processes, one for each device."""

import subprocess
import sys
from collections.abc import Sequence


def launch_ranks(count: int, arguments: Sequence[str]) -> int:
    """Run ``hyperscale`` with these arguments in so many processes of this machine, by ``torchrun``.

    Returns:
        Exit code of them all.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return subprocess.run([*launcher, "-m", "hyperscale.cli", *arguments], check=False).returncode
