"""Marks that reasoning models write around their thinking."""

THINKING = "<think>"
END_OF_THINKING = "</think>"
