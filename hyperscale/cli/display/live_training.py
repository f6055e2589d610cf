"""Shows a training on a terminal: one line that is written anew, below the lines that stay."""

from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from hyperscale.retrofit.reporting.step_metrics import StepMetrics, format_hours, format_line

if TYPE_CHECKING:
    from rich.console import Console

#: Steps whose line stays.
_KEPT = 100


class LiveTraining(Live):
    """The live line; the figures of every `_KEPT`-th step stay above it."""

    def __init__(self, console: "Console") -> None:
        super().__init__(Text(""), console=console, auto_refresh=False, transient=True)

    def show(self, step: StepMetrics) -> None:
        """Show the figures of a step."""
        if step.done % _KEPT == 0:
            self.console.print(format_line(step), highlight=False)
        self.update(Text(describe(step), no_wrap=True, overflow="ellipsis"), refresh=True)


def describe(step: StepMetrics) -> str:
    """The live line: place, losses, saving, pace, time left."""
    saved = sum(step.saved) / len(step.saved)
    # What matters most stands first: a terminal of 80 columns cuts the rest off.
    return (
        f"step {step.done:,} of {step.total:,}  {format_hours(step.hours_left)} left  loss {step.loss:.4f}  "
        f"KL {step.kl:.4f}  saving {saved:.1%} of {step.target:.1%}  {step.tokens_per_second:,.0f} tokens/s  "
        f"gates {step.mode}"
    )
