"""Trains to each compression ratio; checks, writes and records the checkpoint there."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.errors import RetrofitError
from hyperscale.retrofit.other_readers import complete_saved_config
from hyperscale.retrofit.reporting.records import CheckpointRecord

if TYPE_CHECKING:
    from hyperscale.retrofit.packing import TrainingBatch
    from hyperscale.retrofit.trainer import Retrofit, TrainedStudent

#: Most bytes of a file of weights. A file that is written from a GPU is in the machine's memory as a whole.
SHARD_BYTES = 5_000_000_000


def save_checkpoint(model: Any, folder: Path, **settings: Any) -> None:
    """Write configuration and bfloat16 weights; the model's own weights keep their type, rounded to bfloat16.

    Only parameters are cast. ``model.to(bfloat16)`` would round the rotary frequencies as well, which are no part of
    the checkpoint and stay rounded: whatever is trained afterwards would not see the positions that inference sees.

    Args:
        model: A transformers causal LM, gates attached or not; low-rank updates are merged into what is written.
        folder: Where to.
        settings: Keys that join the configuration.
    """
    import torch

    from hyperscale.retrofit.low_rank.merging import merge_updates

    for key, value in settings.items():
        setattr(model.config, key, value)
    with merge_updates(model):
        dtypes = [(parameter, parameter.dtype) for parameter in model.parameters()]
        for parameter, _ in dtypes:
            parameter.data = parameter.data.to(torch.bfloat16)
        model.save_pretrained(folder, max_shard_size=SHARD_BYTES)
        for parameter, dtype in dtypes:
            parameter.data = parameter.data.to(dtype)
    complete_saved_config(folder)


def train_checkpoints(
    retrofit: "Retrofit",
    batches: "Iterator[TrainingBatch]",
    held_out: "Sequence[TrainingBatch]",
    save: "Callable[[TrainedStudent, str, CheckpointRecord], None]",
    record: Callable[[list[CheckpointRecord]], None] = lambda _: None,
    before: Sequence[CheckpointRecord] = (),
) -> list[CheckpointRecord]:
    """Train to all ratios; a checkpoint that the gate check refuses is saved as ``refused-<method><CR>``.

    Args:
        retrofit: What to run.
        batches: Endless training data.
        held_out: Data of the gate check.
        save: Writes a checkpoint under a name, with its record beside it.
        record: Called with all records so far after each checkpoint.
        before: Records of the checkpoints that a resumed training had left behind it.

    Raises:
        RetrofitError: A checkpoint was refused; raised at the end, the first one's.
    """
    from hyperscale.retrofit.gate_check import check_gates

    records = list(before)
    method = retrofit.recipe.method
    for student in retrofit.run(batches):
        check = check_gates(retrofit, held_out)
        retrofit.report(
            f"{method.upper()} {student.cr:g}x after {student.steps} steps: KL {check.hard:.5f} with inference gates,"
            f" {check.noisy:.5f} with training gates, mean alpha {check.alpha:.3f}, ratio reached {check.reached:.2f}"
        )
        name, refused = f"{method}{student.cr:g}", ""
        try:
            check.require(student.cr * retrofit.recipe.reach)
        except RetrofitError as error:
            # The training goes on: a larger ratio, after more steps, may pass.
            refused = f"CR {student.cr:g} (kept as refused-{name}): {error}"
            name = f"refused-{name}"
        if check.warning:
            retrofit.report(f"{name} is {check.warning}")
        made = CheckpointRecord(
            cr=student.cr,
            steps=student.steps,
            tokens=student.tokens,
            seconds=retrofit.clock.seconds,
            kl_hard=check.hard,
            kl_noisy=check.noisy,
            alpha=check.alpha,
            reached_cr=check.reached,
            log=student.log,
            kept=check.kept,
            refused=refused,
        )
        save(student, name, made)
        records.append(made)
        record(records)
    require_accepted(records)
    return records


def require_accepted(records: Iterable[CheckpointRecord]) -> None:
    """Fail if the gate check refused a checkpoint.

    Raises:
        RetrofitError: It did; the first one's reason.
    """
    for made in records:
        if made.refused:
            raise RetrofitError(made.refused)
