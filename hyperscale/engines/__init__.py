"""Engines: requests in, finished chains out."""
