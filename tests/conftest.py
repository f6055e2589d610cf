"""One thread a process, which waits asleep: tests share a machine, and tiny models gain nothing from more."""

import os
import shutil

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

# Where there is no GPU, triton's kernels run in its interpreter; it has to know before anything imports it.
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")
