"""Runs presses of kvpress through transformers."""
