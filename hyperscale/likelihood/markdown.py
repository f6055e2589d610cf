"""Writes a measurement's two tables in Markdown, as pages and reports take them."""

from collections.abc import Mapping
from math import isnan
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def format_tables(documents: int, tokens: int, full: float, arms: "pd.DataFrame", buckets: "pd.DataFrame") -> str:
    """Each method's nats, KL and realised ratios, and the nats above the full cache by position.

    Args:
        documents: How many were scored.
        tokens: How many were scored of each.
        full: Nats a token with the full cache.
        arms: See `Likelihood.arms`.
        buckets: See `Likelihood.buckets`.
    """
    rows = [["full cache", "1", f"{full:.3f}", "0", "0", "1.00", "1.00"]]
    for row in arms.to_dict("records"):
        ratios = (f"{row[name]:.2f}" for name in ("realised_cr", "read_ratio"))
        nats = f"{row['nats']:.3f}"
        rows.append([*_arm(row), nats, _value(row, "above_full", "+"), _value(row, "kl"), *ratios])
    heads = ["method", "CR", "nats", "above full cache", "KL(full \\|\\| compressed)", "realised CR", "read CR"]
    spans = dict.fromkeys(f"{first}–{last}" for first, last in zip(buckets["first"], buckets["last"], strict=True))
    where = []
    for _, group in buckets.groupby(["method", "CR", "kv_budget"], sort=False):
        where.append([*_arm(group.to_dict("records")[0]), *(f"{value:+.2f}" for value in group["above_full"])])
    parts = [
        f"{documents:,} documents, {tokens:,} tokens of each scored; nats a token, 95 % intervals over documents:",
        _table(heads, rows),
        "Nats above the full cache, by position in the document:",
        _table(["method", "CR", *spans], where),
    ]
    return "\n\n".join(parts) + "\n"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _arm(row: Mapping[Any, Any]) -> list[str]:
    return [row["method"], f"{row['kv_budget']} tokens" if row["kv_budget"] else f"{row['CR']:g}"]


def _value(row: Mapping[Any, Any], name: str, sign: str = "") -> str:
    """A value with its interval, if there is one."""
    value, low, high = (float(row[name + end]) for end in ("", "_low", "_high"))
    return f"{value:{sign}.3f}" if isnan(low) else f"{value:{sign}.3f} [{low:.3f}, {high:.3f}]"
