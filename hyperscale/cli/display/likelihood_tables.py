"""Prints the likelihood of texts under compression."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hyperscale.cli.display.table_format import make_table, print_table
from hyperscale.results.intervals import MIN_PROBLEMS

if TYPE_CHECKING:
    from hyperscale.likelihood.frames import Likelihood


def print_likelihood(likelihood: "Likelihood", console: Console) -> None:
    """Two tables: each method's nats, KL and realised ratio; and where in the documents it loses."""
    settings, count = likelihood.settings, len(likelihood.documents_chosen)
    scored = settings.length - settings.prompt_tokens
    name = Path(settings.model).name
    table = make_table(
        f"nats a token: {name}, {count:,} document{'s' * (count != 1)}, {scored:,} tokens of each scored",
        ["method"],
        ["CR", "nats", "above full cache", "KL(full || compressed)", "realised CR", "read CR"],
    )
    full = likelihood.full
    table.add_row("full cache", "1", f"{full.mean:.4f}", "0", "0", "1.00", "1.00")
    for row in likelihood.arms.to_dict("records"):
        table.add_row(
            row["method"],
            _compression(row),
            f"{row['nats']:.4f}",
            _with_interval(row, "above_full", "+"),
            _with_interval(row, "kl"),
            f"{row['realised_cr']:.2f}",
            f"{row['read_ratio']:.2f}",
        )
    print_table(table, console, ["read CR", "nats"])
    buckets = likelihood.buckets
    spans = dict.fromkeys(f"{first}–{last}" for first, last in zip(buckets["first"], buckets["last"], strict=True))
    where = make_table("nats above the full cache, by position in the document", ["method"], ["CR", *spans])
    for _, group in buckets.groupby(["method", "CR", "kv_budget"], sort=False):
        arm = group.to_dict("records")[0]
        where.add_row(arm["method"], _compression(arm), *(f"{value:+.3f}" for value in group["above_full"]))
    print_table(where, console, list(spans)[1:-1])
    if count < MIN_PROBLEMS:
        console.print(f"note: intervals need {MIN_PROBLEMS} documents or more", highlight=False)


def _compression(row: Mapping[Any, Any]) -> str:
    return f"{row['kv_budget']} tokens" if row["kv_budget"] else f"{row['CR']:g}"


def _with_interval(row: Mapping[Any, Any], name: str, sign: str = "") -> str:
    """A value with its interval, if there is one."""
    value, low, high = (float(row[name + end]) for end in ("", "_low", "_high"))
    return f"{value:{sign}.4f}" if isnan(low) else f"{value:{sign}.4f} [{low:.4f}, {high:.4f}]"
