"""Runs lm-eval's tasks with a compressed KV cache: hyperscale as a model of lm-eval.

``python -m hyperscale.lm_eval --model hyperscale --model_args model=llama-3.2-1b-dms,method=dms,cr=8 --tasks gsm8k`` is
lm-eval's own command with this model registered: lm-eval finds models of other packages only after they are imported.
In Python, ``import hyperscale.lm_eval`` before ``lm_eval.simple_evaluate(model="hyperscale", …)`` does the same.

The compression is in force in both kinds of request. A generated token and a scored one go through the same cache: the
context is prefilled under the method, then the continuation is fed token by token.

What a task or ``--gen_kwargs`` asks for is applied or refused, by name. Stop strings of a task apply to the answer, not
to a thinking in front of it.
"""

from typing import TYPE_CHECKING

import lazy_loader
from lm_eval.api.registry import model_registry

if TYPE_CHECKING:
    from hyperscale.lm_eval.command import main as main
    from hyperscale.lm_eval.model import HyperscaleLM as HyperscaleLM

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"command": ["main"], "model": ["HyperscaleLM"]}
)

# By its place: the class is imported when lm-eval asks for it.
model_registry.register("hyperscale", target="hyperscale.lm_eval.model:HyperscaleLM")
