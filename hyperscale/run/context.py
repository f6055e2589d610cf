"""Keeps the lengths of a run within the model's context: those that a user named are refused, others are left out."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hyperscale.errors import ConfigError, ModelError
from hyperscale.models.checkpoint import read_checkpoint_config
from hyperscale.models.context import context_limit

if TYPE_CHECKING:
    from hyperscale.planning.planner import Plan
    from hyperscale.run.config.resolve import ResolvedConfig
    from hyperscale.tasks.task import Task


def smallest_context(paths: Iterable[str]) -> int | None:
    """Tokens of the smallest context of some checkpoints, or None if no configuration says.

    Raises:
        ModelError: A configuration cannot be read.
    """
    limits = [context_limit(read_checkpoint_config(path)) for path in paths]
    return min((limit for limit in limits if limit is not None), default=None)


def fit_lengths(
    task: "Task", longest_prompt: int, context: int | None, config: "ResolvedConfig"
) -> "tuple[Task, str | None]":
    """A task without the lengths that do not fit the model's context, and a note if there are any.

    A chain with its prompt has to fit, and where answers are forced a branch that begins at its L. If the base length
    goes, the largest that fits takes its place.

    Args:
        task: The task.
        longest_prompt: Tokens of its longest prompt.
        context: Most tokens of a sequence; None if unknown.
        config: The run's configuration.

    Raises:
        ConfigError: The user named a length that does not fit.
        ModelError: Nothing fits.
    """
    if context is None:
        return task, None
    room = context - longest_prompt - config.answer_room
    beyond = [L for L in task.lengths if room < L]
    if not beyond:
        return task, None
    answer = f" and a forced answer {config.answer_room:,}" if config.answer_room else ""
    reason = f"the context of {config.model} is {context:,} tokens, of which prompts of {task.name} take up to "
    reason += f"{longest_prompt:,}{answer}"
    if room < 1:
        raise ModelError(f"{reason}: nothing can be generated")
    if config.lengths:
        raise ConfigError(f"--length {','.join(map(str, beyond))}: {reason}: choose at most {room}")
    lengths = tuple(L for L in task.lengths if room >= L)
    if not lengths:
        raise ModelError(
            f"no length of {task.name} ({_list(task.lengths)}) fits: {reason}: pass --length {room} or less"
        )
    base = task.base_length if task.base_length in lengths else max(lengths)
    note = f"L = {_list(beyond)} left out: {reason}"
    if base != task.base_length:
        note += f"; the base point of {task.name} has L = {base:,}"
    return dataclasses.replace(task, lengths=lengths, base_length=base), note


def check_plan(plan: "Plan", lengths_by_task: "dict[str, tuple[int, ...]]") -> None:
    """Refuse a plan of an earlier version whose chains would leave the model's context.

    Args:
        plan: The plan that a folder has.
        lengths_by_task: What `fit_lengths` left of each task's lengths.

    Raises:
        ModelError: It has such chains.
    """
    for point in plan.points:
        if max(lengths_by_task[point.task]) < point.L:
            raise ModelError(
                f"the folder's plan has L = {point.L:,} on {point.task}, beyond the model's context: choose another "
                "folder with --out"
            )


def _list(lengths: Sequence[int]) -> str:
    return ", ".join(f"{L:,}" for L in lengths)
