"""Notices that vLLM's process has ended, and says what its errors mean."""

import threading
from queue import Queue
from typing import Any

from hyperscale.errors import EngineError, first_line


def end_waiting_with_process(receiver: threading.Thread, outputs: Queue[Any]) -> None:
    """Put an error into the queue of outputs when vLLM's process ends.

    When that process is killed, its client stops receiving and puts nothing in the queue: `step` would wait forever.

    Args:
        receiver: The client's thread that receives, which ends with the process.
        outputs: What it receives.
    """

    def wait() -> None:
        receiver.join()
        outputs.put(RuntimeError("its process ended"))

    threading.Thread(target=wait, name="hyperscale-vllm-end", daemon=True).start()


def call_workers(engine: Any, name: str, *args: Any) -> None:
    """Call a method of vLLM's workers and wait for its end, or for that of their process.

    When that process is killed meanwhile, vLLM's client would wait forever.

    Args:
        engine: vLLM's ``LLMEngine``, which has nothing else to do.
        name: The method.
        args: Its arguments.

    Raises:
        Exception: What the method raised, as vLLM's client tells it, or that the process ended.
    """
    receiver = getattr(engine.engine_core, "output_queue_thread", None)
    if receiver is None:  # its workers are in this process
        engine.collective_rpc(name, args=args)
        return
    errors: list[BaseException] = []

    def call() -> None:
        try:
            engine.collective_rpc(name, args=args)
        except BaseException as error:  # raised below, in the thread that waits
            errors.append(error)

    caller = threading.Thread(target=call, name="hyperscale-vllm-call", daemon=True)
    caller.start()
    while caller.is_alive():
        caller.join(0.1)
        if caller.is_alive() and not receiver.is_alive():
            raise RuntimeError("its process ended")
    if errors:
        raise errors[0]


def explain_error(error: Exception) -> EngineError:
    """The error for the user when vLLM has stopped while it ran, with advice."""
    reason = f"{type(error).__name__}: {first_line(error)}"
    if type(error).__name__ == "EngineDeadError":
        reason = "its process ended; what it printed above says why, else it was killed, as for want of memory"
    advice = "run the same command again"
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
        advice += " with a smaller --batch-size"
    return EngineError(f"vLLM stopped ({reason}): finished chains are kept; {advice}")
