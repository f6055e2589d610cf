"""Draws nats above the full cache over the position in the document: a panel a ratio, a line a method."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperscale.likelihood.scoring import TokenScores
from hyperscale.likelihood.settings import LikelihoodSettings
from hyperscale.likelihood.summary import estimate, excess, split_positions
from hyperscale.methods.arm import Arm, compression_label
from hyperscale.methods.names import VANILLA
from hyperscale.report.plots.figure import WIDTH
from hyperscale.report.plots.styles import assign_dashes, assign_styles
from hyperscale.results.intervals import MIN_PROBLEMS

_BUCKETS = 16
_HEIGHT = 3.2  # inches
_MOST_BANDS = 5  # methods of which bands can be told apart
_TICKS = (0, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
_LINEAR = 0.1  # nats below which the axis is linear


def draw(scores_of: Mapping[Arm, TokenScores], settings: LikelihoodSettings) -> Any:
    """The figure. Each marker is the mean over a sixteenth of the positions.

    Bands are 95 % over documents, where there are few enough methods. The axis of nats is logarithmic from a tenth up:
    where budgets are small a method may lose a hundred times as much as elsewhere.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    buckets = split_positions(settings.prompt_tokens, settings.length, _BUCKETS)
    # Vanilla stands in every panel; budgets in tokens have panels of their own.
    labels = {arm: compression_label(arm.CR, arm.kv_budget) for arm in scores_of if arm.method != VANILLA}
    panels_of = list(dict.fromkeys(labels.values())) or [""]
    styles = assign_styles(arm.method for arm in scores_of)
    dashes = assign_dashes(styles)
    figure = Figure(figsize=(WIDTH if len(panels_of) > 1 else WIDTH * 0.65, _HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
    count = len(next(iter(scores_of.values())).nats)
    has_bands = len({arm.method for arm in scores_of} - {VANILLA}) <= _MOST_BANDS and count >= MIN_PROBLEMS
    panels = figure.subplots(1, len(panels_of), squeeze=False, sharey=True)[0]
    for panel, label in zip(panels, panels_of, strict=True):
        for arm, scores in scores_of.items():
            if labels.get(arm, label) != label:
                continue
            colour, marker = styles[arm.method]
            above = excess(scores)
            start = settings.prompt_tokens
            means = [estimate(above[:, b.first - start : b.last + 1 - start].mean(1)) for b in buckets]
            middles = [(b.first + b.last) / 2 for b in buckets]
            panel.plot(
                middles,
                [e.mean for e in means],
                color=colour,
                marker=marker,
                ms=3,
                lw=1,
                ls=dashes[arm.method],
                label=arm.method,
            )
            if not has_bands:
                continue
            panel.fill_between(middles, [e.low for e in means], [e.high for e in means], color=colour, alpha=0.1, lw=0)
        panel.axhline(0, color="#555555", lw=0.6, zorder=0)
        panel.set_title(f"CR {label}" if label and not label.endswith("t") else label, fontsize=7.5)
        panel.set_xlim(0, settings.length)
        panel.set_yscale("symlog", linthresh=_LINEAR)
        panel.yaxis.set_major_locator(FixedLocator([sign * nats for nats in _TICKS for sign in (1, -1)]))
        panel.yaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.grid(axis="y", lw=0.3, color="#DDDDDD")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("nats a token above the full cache")
    figure.supxlabel(
        f"position in the document (tokens){'; bands: 95 % over documents' if has_bands else ''}", fontsize=7.5
    )
    handles = {
        text: handle for panel in panels for handle, text in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles=[handles[name] for name in styles],
        labels=list(styles),
        loc="outside upper center",
        ncols=min(len(styles), 8),
        frameon=False,
        title=f"{Path(settings.model).name}, {count} document{'s' * (count > 1)} of {settings.length} tokens",
        title_fontsize=6.5,
    )
    return figure
