"""Graders, voting over chains, and running model-written code."""
