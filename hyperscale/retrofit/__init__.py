"""Retrofitting a model with DMS: losses, schedule, loop and checks."""
