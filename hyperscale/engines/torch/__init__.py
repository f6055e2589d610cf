"""The reference engine: PyTorch, on the CPU or one GPU."""
