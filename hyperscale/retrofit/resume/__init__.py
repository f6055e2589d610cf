"""Leaves a training at any step and takes it up again: its state on disk, signals, and whether it is the same one."""
