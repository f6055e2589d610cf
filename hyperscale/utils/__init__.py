"""Helpers that know nothing of the domain: files, paths, the hub, random numbers by counter."""
