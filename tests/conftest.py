"""One thread a process, which waits asleep: tests share a machine, and tiny models gain nothing from more."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
# Some machines ask every program for colours, though it writes to a pipe; tests read what is written.
for name in ("FORCE_COLOR", "PY_COLORS", "TTY_COMPATIBLE", "GITHUB_ACTIONS"):
    os.environ.pop(name, None)

# Where there is no GPU, triton's kernels run in its interpreter; it has to know before anything imports it.
if shutil.which("nvidia-smi") is None and not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# vLLM's newer model runner, the one that GPUs get, wants triton; on the CPU the interpreter passes for it.
if os.environ.get("TRITON_INTERPRET") == "1" and os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "1":
    with suppress(ImportError):
        from triton.backends import backends

        backends.setdefault("cpu", SimpleNamespace(driver=None))


@pytest.fixture(autouse=True)
def _pipe_of_its_own_width(monkeypatch):
    """Several processes side by side are told the width of the terminal that pytest runs in; commands follow it."""
    monkeypatch.delenv("COLUMNS", raising=False)


# Asserts in the helpers explain themselves as those in tests do.
pytest.register_assert_rewrite(*(path.stem for path in (Path(__file__).parent / "helpers").glob("*/*.py")))
