"""A process that holds one engine of a pool on this machine: ``python -m hyperscale.executors.local_worker FD``."""

import os
import sys
import traceback
from threading import Thread
from typing import TYPE_CHECKING

from hyperscale.executors.local import connect
from hyperscale.executors.worker import EngineWorker

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from hyperscale.executors.messages import Order, Report

_SECONDS_BETWEEN_REPORTS = 1.0


def main() -> None:
    """Serve the run at the other end of the connection until it closes it."""
    connection = connect(int(sys.argv[1]))
    worker = EngineWorker()
    Thread(target=_listen, args=(connection, worker), daemon=True).start()
    teller = Thread(target=_tell, args=(connection, worker), daemon=True)
    teller.start()
    worker.run()  # in the main thread, where libraries that handle signals expect to be
    teller.join()


def _listen(connection: "Connection[Report, Order | None]", worker: EngineWorker) -> None:
    while True:
        try:
            order = connection.recv()
        except (EOFError, OSError):
            os._exit(1)  # the run is gone: nobody wants what is being generated
        except Exception:  # an order that cannot be read: without this thread the process would wait for ever
            traceback.print_exc()
            os._exit(1)
        if order is None:
            worker.close()
        else:
            worker.give(order)


def _tell(connection: "Connection[Report, Order | None]", worker: EngineWorker) -> None:
    try:
        connection.send(worker.take(0))  # at once: the process is here
        is_over = False
        while not is_over:
            is_over = worker.is_over
            connection.send(worker.take(_SECONDS_BETWEEN_REPORTS))
    except OSError:
        os._exit(1)  # the run is gone, see `_listen`


if __name__ == "__main__":
    main()
