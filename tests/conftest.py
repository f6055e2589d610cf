"""One thread a process, which waits asleep: tests share a machine, and tiny models gain nothing from more."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
