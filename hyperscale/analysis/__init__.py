"""Frontiers of accuracy against cost, margins between them, and their intervals."""
