"""Names of methods, for packages that must not import a method, and torch with it, to know them."""

VANILLA = "vanilla"
"""The method that evicts nothing: the full cache, at a ratio of 1."""
KVPRESS = "kvpress:"
"""Stands in front of a press's name."""
KVPRESS_ENGINE = "kvpress"
"""The engine that presses need."""


def needed_engine(method: str) -> str | None:
    """The only engine that a method runs in; None if it runs in every engine that knows it."""
    return KVPRESS_ENGINE if method.startswith(KVPRESS) else None
