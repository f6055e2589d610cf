"""``torchrun`` without its tracebacks: the processes say why they end, and what they cannot say stands here.

``python -m hyperscale.retrofit.parallel.run_ranks PARENT`` takes its arguments, after the number of the process that
starts it: with that one it ends.
"""

import logging
import os
import signal
import sys
import threading
import time

_SECONDS = 1.0  # between looks at whether the parent is there


def main() -> None:
    """Run ``torchrun``; exit code 1 if a process failed."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as run

    logging.disable(logging.ERROR)  # of this process alone; it repeats exit codes, and signals that were passed on
    _end_with(int(sys.argv[1]))
    try:
        run(["--signals-to-handle", ",".join(_list_signals()), *sys.argv[2:]])
    except SignalException as ended:
        sys.exit(128 + int(ended.sigval))
    except ChildFailedError as failed:
        for rank, failure in sorted(failed.failures.items()):
            # SIGTERM it sends itself, to the others of one that failed.
            if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:
                sys.stderr.write(f"process {rank} of the training was ended by signal {-failure.exitcode}\n")
        sys.exit(1)


def _end_with(parent: int) -> None:
    """Once the parent is gone, end as by SIGTERM: the processes keep their states.

    One that is killed passes no signal on, and the training would go on unseen.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _list_signals() -> list[str]:
    """Signals that end the processes: ``torchrun`` would take SIGHUP, too, though nohup has it ignored."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    return [number.name for number in numbers if signal.getsignal(number) != signal.SIG_IGN]


if __name__ == "__main__":
    main()
