"""Sorts names with numbers in them as people do."""

import re


def natural_order(name: str) -> list[tuple[int, str]]:
    """A key that sorts p2 before p10, and ``vt@512`` before ``vt@1024``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]
