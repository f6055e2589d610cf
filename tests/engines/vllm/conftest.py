"""Spares tests that start engine after engine what vLLM does for a process that starts one.

Around each engine it freezes the heap of Python's collector, thaws it and collects eight times, and looks for kernels
in all modules: three of the four seconds that a tiny model takes to start and to stop.
"""

import gc
import sys

import pytest
import torch


@pytest.fixture(autouse=True)
def _collect_what_is_new(monkeypatch):
    """What is there before a test is frozen until the end; collections in it see what the test itself has made."""
    if "vllm" not in sys.modules or torch.cuda.is_available():
        return
    gc.collect()
    gc.freeze()
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "unfreeze", lambda: None)


@pytest.fixture(autouse=True)
def _look_for_kernels_once(monkeypatch):
    """vLLM puts others in the place of Triton's kernels, which stay there: another start finds none of them."""
    dispatcher = sys.modules.get("vllm.triton_utils.dispatcher")
    if dispatcher is None:
        return
    register = dispatcher.register_kernels

    def register_new(overrides):
        new = {name: function for name, function in overrides.items() if name not in dispatcher._registry}
        if new:
            register(new)

    monkeypatch.setattr(dispatcher, "register_kernels", register_new)
