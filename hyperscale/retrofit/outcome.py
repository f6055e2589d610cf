"""Running a retrofit to its end: every checkpoint is checked, saved and recorded."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hyperscale.errors import RetrofitError
from hyperscale.retrofit.gate_check import check_gates
from hyperscale.retrofit.packing import TrainingBatch
from hyperscale.retrofit.trainer import Finished, Retrofit

Record = dict[str, Any]


def finish(
    retrofit: Retrofit,
    batches: Iterator[TrainingBatch],
    held_out: Sequence[TrainingBatch],
    save: Callable[[Finished, str], None],
    record: Callable[[list[Record]], None] = lambda _: None,
) -> list[Record]:
    """Train to all ratios; a checkpoint that the gate check refuses is saved as ``refused-<method><CR>``.

    Args:
        retrofit: What to run.
        batches: Endless training data.
        held_out: Data of the gate check.
        save: Writes a checkpoint under a name.
        record: Called with all records so far after each checkpoint.

    Raises:
        RetrofitError: A checkpoint was refused; raised at the end, the first one's.
    """
    records: list[Record] = []
    refused: list[str] = []
    started, method = time.monotonic(), retrofit.recipe.method
    for finished in retrofit.run(batches):
        check = check_gates(retrofit, held_out)
        retrofit.report(
            f"{method.upper()} {finished.cr:g}x after {finished.steps} steps: KL {check.hard:.5f} with inference gates,"
            f" {check.noisy:.5f} with training gates, mean alpha {check.alpha:.3f}"
        )
        name = f"{method}{finished.cr:g}"
        try:
            check.require()
        except RetrofitError as error:
            refused.append(f"CR {finished.cr:g} (kept as refused-{name}): {error}")
            name = f"refused-{name}"
        save(finished, name)
        records.append(
            {
                "cr": finished.cr,
                "steps": finished.steps,
                "tokens": finished.tokens,
                "seconds": time.monotonic() - started,
                "kl_hard": check.hard,
                "kl_noisy": check.noisy,
                "alpha": check.alpha,
                "log": finished.log,
            }
        )
        record(records)
    if refused:
        raise RetrofitError(refused[0])
    return records
