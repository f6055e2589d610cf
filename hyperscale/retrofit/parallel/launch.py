"""Starts this command once more in several processes, one for each device."""

import os
import signal
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

    SIGTERM and SIGHUP are passed on; Ctrl-C reaches them from the terminal.

    Raises:
        RetrofitError: One of them failed; it has said why.
        KeyboardInterrupt: Ctrl-C ended them.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    with subprocess.Popen([*launcher, "-m", "hyperscale.cli", *sys.argv[1:]]) as process:
        received: list[int] = []

        def pass_on(number: int, _: object) -> None:
            received.append(number)
            if number != signal.SIGINT:
                process.send_signal(number)

        before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
        try:
            code = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])
    if code:
        raise RetrofitError(
            f"one of the {count} processes of the training failed, as it says above: what was written stays, and the "
            "same command goes on with it"
        )
