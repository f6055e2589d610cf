"""Presses of kvpress as methods."""
