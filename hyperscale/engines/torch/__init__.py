"""The reference engine: transformers' models with continuous batching over the ragged cache.

`provider` states what it can, `engine` is what a run uses, `batch` the life of its chains, `token_draw` how they get
their tokens, `forward_pass` our attention inside transformers' models. On a GPU `static_step` makes decode steps that
`cuda_graphs` can hold, with attention by `row_kernels`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.engines.torch.engine import TorchEngine as TorchEngine

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"engine": ["TorchEngine"]})
