"""The built-in model and benchmarks: everything can be tried without a download.

`problems` generates problems with chains of thought over the closed vocabulary of `vocab`; `benchmarks` makes test sets
of them; `model` is the small Qwen3 whose weights lie in `weights/`; `train` is the recipe that made them
(``python -m hyperscale.mini.train``), its parts in `training`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.mini.benchmarks import BenchmarkProblem as BenchmarkProblem
    from hyperscale.mini.benchmarks import generate_problems as generate_problems
    from hyperscale.mini.model import WEIGHTS as WEIGHTS
    from hyperscale.mini.model import build_model as build_model
    from hyperscale.mini.model import save_model as save_model
    from hyperscale.mini.vocab import build_tokenizer as build_tokenizer
    from hyperscale.mini.vocab import decode as decode
    from hyperscale.mini.vocab import encode as encode

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "benchmarks": ["BenchmarkProblem", "generate_problems"],
        "model": ["WEIGHTS", "build_model", "save_model"],
        "vocab": ["build_tokenizer", "decode", "encode"],
    },
)
