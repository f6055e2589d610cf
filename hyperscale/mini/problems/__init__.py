"""Generators of the built-in benchmarks' problems."""
