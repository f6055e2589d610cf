"""Kernels of steps in which requests decode: attention that is shared out evenly, and the step's report."""
