"""What tests of triton's kernels run on; importing it skips a module that has neither a GPU nor the interpreter."""

import os

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")
CUDA = torch.cuda.is_available()
if not CUDA and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a CUDA device, or TRITON_INTERPRET=1 from the start", allow_module_level=True)

DEVICE = torch.device("cuda" if CUDA else "cpu")
MARKS = [pytest.mark.gpu] if CUDA else []
