"""Starts this command once more in several processes, one for each device."""

import os
import signal
import subprocess
import sys
import tempfile

from hyperscale.errors import RetrofitError
from hyperscale.utils.said_once import FOLDER

#: Seconds that processes which were told to stop have for the step that they are in and for writing their states.
STOP_SECONDS = 3600


def is_started() -> bool:
    """Whether this process is one of several that ``torchrun`` has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this process is the first of them, or alone."""
    return int(os.environ.get("RANK", "0")) == 0


def is_launched() -> bool:
    """Whether this command has started it, and has said what it read and chose before."""
    return is_started() and FOLDER in os.environ


def launch_ranks(count: int) -> None:
    """Run this process's command line in so many processes of this machine, by ``torchrun``, and wait for them.

    Signals are passed on. They come to the processes in no other way, as these have a session of their own: one that a
    terminal also sent to ``torchrun`` would come twice, and a second one ends a training at once, without its state.

    Raises:
        RetrofitError: One of them failed; it has said why.
        KeyboardInterrupt: Ctrl-C ended them.
    """
    launcher = [
        sys.executable,
        "-m",
        "hyperscale.retrofit.parallel.run_ranks",
        str(os.getpid()),
        "--standalone",
        "--nproc-per-node",
        str(count),
    ]
    # torchrun kills what has not stopped within 30 s; a step of a large model and its state take longer.
    environment = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(STOP_SECONDS)} | os.environ
    command = [*launcher, "-m", "hyperscale.cli", *sys.argv[1:]]
    with (
        tempfile.TemporaryDirectory() as said,
        subprocess.Popen(command, env=environment | {FOLDER: said}, start_new_session=True) as process,
    ):
        received: list[int] = []

        def pass_on(number: int, _: object) -> None:
            received.append(number)
            process.send_signal(number)

        before = {
            number: signal.signal(number, pass_on)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
            # Under nohup SIGHUP is ignored, as it was asked for.
            if signal.getsignal(number) not in (signal.SIG_IGN, None)
        }
        try:
            code = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])
    if code:
        raise RetrofitError(
            f"the {count} processes of the training ended early, as is said above: what was written stays"
        )
