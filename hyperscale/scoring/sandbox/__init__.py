"""Runs programs that models wrote, apart from everything else."""
