"""The built-in model and benchmarks, so that the whole line runs without a download."""
