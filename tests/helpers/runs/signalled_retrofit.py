"""A command line for `python -c` that ends itself by SIGTERM in the middle of a retrofit's step."""

SIGNALLED = """
import os, signal, sys
from hyperscale.cli import main
from hyperscale.retrofit.trainer import Retrofit

steps, step = int(sys.argv.pop(1)), Retrofit._step

def step_and_signal(self, *parts, **named):
    if self.steps_done == steps:
        os.kill(os.getpid(), signal.SIGTERM)
    step(self, *parts, **named)

Retrofit._step = step_and_signal
main.main()
"""
"""Its first argument is the number of steps before that one, the others are the command's."""
