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
from hyperscale.report.plots.styles import assign_styles

_BUCKETS = 16
_HEIGHT = 2.9  # inches


def draw(scores_of: Mapping[Arm, TokenScores], settings: LikelihoodSettings) -> Any:
    """The figure. Each marker is the mean over a sixteenth of the positions; bands are 95 % over documents."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buckets = split_positions(settings.prompt_tokens, settings.length, _BUCKETS)
    # Vanilla stands in every panel; budgets in tokens have panels of their own.
    labels = {arm: compression_label(arm.CR, arm.kv_budget) for arm in scores_of if arm.method != VANILLA}
    panels_of = list(dict.fromkeys(labels.values())) or [""]
    styles = assign_styles(arm.method for arm in scores_of)
    figure = Figure(figsize=(WIDTH if len(panels_of) > 1 else WIDTH * 0.65, _HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
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
            panel.plot(middles, [e.mean for e in means], color=colour, marker=marker, ms=3, lw=1, label=arm.method)
            panel.fill_between(middles, [e.low for e in means], [e.high for e in means], color=colour, alpha=0.1, lw=0)
        panel.axhline(0, color="#555555", lw=0.6, zorder=0)
        panel.set_title(f"CR {label}" if label and not label.endswith("t") else label, fontsize=7.5)
        panel.set_xlim(0, settings.length)
        panel.grid(axis="y", lw=0.3, color="#DDDDDD")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("nats a token above the full cache")
    figure.supxlabel("position in the document (tokens)", fontsize=7.5)
    handles = {
        text: handle for panel in panels for handle, text in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    count = len(next(iter(scores_of.values())).nats)
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
