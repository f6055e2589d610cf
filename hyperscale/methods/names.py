"""Names of methods, for packages that must not import a method, and torch with it, to know them."""

VANILLA = "vanilla"
"""The method that evicts nothing: the full cache, at a ratio of 1."""
KVPRESS = "kvpress:"
"""Stands in front of a press's name."""
KVPRESS_ENGINE = "kvpress"
"""The engine that presses need."""
SELECTORS = ("quest",)
"""Methods that evict nothing and read a part of what is there, by `Method.kind`; a press of kvpress may be one too."""

ORDER = (
    *(VANILLA, "dms", "window", "random", "quest", "tova", "h2o", "dmc", "streaming", "keydiff", "knorm"),
    *("triattention", "snapkv", "rkv"),
)
"""The order in which methods are shown, everywhere; any other stands behind them, by name."""


def rank(name: str) -> tuple[int, str]:
    """Sorts methods as they are shown; behind a method's name a type of cache may stand, and a model."""
    method = name.split(" ")[0]
    return (ORDER.index(method) if method in ORDER else len(ORDER), name)


def needed_engine(method: str) -> str | None:
    """The only engine that a method runs in; None if it runs in every engine that knows it."""
    return KVPRESS_ENGINE if method.startswith(KVPRESS) else None
