"""Names of methods that other packages need before any method, and torch with it, is imported."""

VANILLA = "vanilla"
"""The method that evicts nothing: the full cache, at a ratio of 1."""
PREFIX = "kvpress:"
"""Stands in front of a press's name."""
