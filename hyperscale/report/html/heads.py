"""Tells which layers and heads keep their entries: a heat map a method, where the engine has told."""

from collections.abc import Sequence
from typing import Any

from hyperscale.analysis.kept_shares import KeptShares, collect_kept_shares
from hyperscale.methods.arm import compression_label
from hyperscale.methods.names import VANILLA, rank
from hyperscale.results.folder import Run


def collect_heads(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The heat maps of all arms on all tasks, in the order of the page; none where no engine told.

    Each has ``task``; ``name``, of method and compression, and of model and run where there are several; ``chains``;
    and ``layers``: for each layer, of each head, entries held when a chain ended in thousandths of a full cache's.
    """
    found = sorted(collect_kept_shares(runs), key=_place)
    several_models = len({kept.series.model for kept in found}) > 1
    several_runs = len({kept.series.run for kept in found}) > 1
    return [
        {
            "task": kept.series.task,
            "name": _name(kept, several_models, several_runs),
            "chains": kept.chains,
            "layers": [[round(1000 * float(share)) for share in layer] for layer in kept.share],
        }
        for kept in found
    ]


def _place(kept: KeptShares) -> tuple[Any, ...]:
    return kept.series.task, rank(kept.series.method), kept.series


def _name(kept: KeptShares, several_models: bool, several_runs: bool) -> str:
    series = kept.series
    name = series.method
    if series.method != VANILLA:
        label = compression_label(series.CR, series.kv_budget)
        name += f" {label}" if series.kv_budget else f" {label}×"
    if several_models:
        name += f" ({series.model})"
    return f"{name}, {series.run}" if several_runs else name
