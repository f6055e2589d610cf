"""Defines the figures of a training step, and the line that shows them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StepMetrics:
    """The figures of one optimiser step.

    Attributes:
        done: Optimiser steps of the whole training so far, those of every branch included; it only rises.
        total: What ``done`` is at the end.
        step: Optimiser steps that the student as it stands has seen; it falls back when a hard phase has ended.
        mode: Gates of the step: off, noisy or hard.
        cr: Compression ratio aimed at.
        loss: What was minimised.
        kl: The divergence in it, in nats per token.
        target: Share of the entries to be saved.
        saved: Share that was saved, of each kind of data.
        tokens: Tokens that the student has seen, padding included.
        tokens_per_second: Since the last step that was read out.
        seconds: Time since the training began, breaks not counted.
        hours_left: Time to its end, at the pace of this process.
    """

    done: int
    total: int
    step: int
    mode: str
    cr: float
    loss: float
    kl: float
    target: float
    saved: list[float]
    tokens: int
    tokens_per_second: float
    seconds: float
    hours_left: float


def format_line(metrics: StepMetrics) -> str:
    """One line of a step's figures, in columns."""
    saved = " ".join(f"{share:.3f}" for share in metrics.saved)
    return (
        f"{metrics.seconds:5.0f} s  step {metrics.step:5d} {metrics.mode:5s}  CR {metrics.cr:5.2f}  "
        f"loss {metrics.loss:.5f}  KL {metrics.kl:.5f}  saved {saved} of {metrics.target:.3f}  "
        f"{metrics.tokens_per_second:,.0f} tokens/s  {format_hours(metrics.hours_left)} left"
    )


def format_hours(hours: float) -> str:
    """Hours to one place, or minutes below one hour."""
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"
