"""Static decode steps on the CPU: every operation is recorded once and repeated on the same tensors, as CUDA graphs do.

What Python computed while a step was recorded, a number, a shape or a choice, stays as it was then. So a step that
depends on anything but the contents of its tensors goes wrong here as it would on a GPU, and one that would wait for
the device is refused.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import pad
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from hyperscale.engines.base import Request
from hyperscale.engines.torch.static_step import StaticMode
from hyperscale.methods.core.base import State
from hyperscale.methods.vanilla import Vanilla

#: What waits for the device, or makes shapes of its numbers.
WAITING = ("_local_scalar_dense", "item", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "allclose")


class WaitingError(Exception):
    """An operation of a step would wait for the device."""


class Recorder(TorchDispatchMode):
    """Keeps what is called within it."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        if name in WAITING or any(index is not None and index.dtype == torch.bool for index in indices):
            raise WaitingError(str(func))
        return self.keep(func, args, kwargs, tensors)

    def keep(self, func, args, kwargs, tensors):
        result = func(*args, **kwargs)
        storages = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        # Views and what was written in place follow their tensors by themselves.
        own = [tensor.untyped_storage().data_ptr() not in storages for tensor in made]
        self.calls.append((func, args, kwargs, made, own))
        return result

    def replay(self):
        for func, args, kwargs, made, own in self.calls:
            result = func(*args, **kwargs)
            again = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
            for tensor, value, is_own in zip(made, again, own, strict=True):
                if is_own:
                    tensor.copy_(value)


class DirectCalls:
    """Every call is direct."""

    def run(self, key, function):
        return function()

    def forget(self):
        pass


class RecordedCalls:
    """As `CudaGraphs`: the first call is direct, the second is recorded, and from then on it is repeated."""

    recorder = None  # the one that is recording

    def __init__(self):
        self.called, self.records, self.replays, self.sizes = set(), {}, 0, set()
        RecordedCalls.latest = self

    def run(self, key, function):
        self.sizes.add(key[1])
        if key in self.records:
            self.replays += 1
            recorder, result = self.records[key]
            recorder.replay()
            return result
        if key not in self.called:
            self.called.add(key)
            return function()
        with Recorder() as recorder:
            RecordedCalls.recorder = recorder
            try:
                result = function()
            finally:
                RecordedCalls.recorder = None
        self.records[key] = recorder, result
        return result

    def forget(self):
        self.called.clear()
        self.records.clear()


def opaque(function):
    """One recorded operation of what reads structures of the host's, as a kernel reads them from the device."""

    def called(*args):
        with _disable_current_modes():
            recorder = RecordedCalls.recorder
            tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
            return function(*args) if recorder is None else recorder.keep(function, args, {}, tensors)

    return called


class SlabAttention:
    """Attends as `RaggedCache.attend` does, in padded batches."""

    def __init__(self, cache):
        self.cache = cache
        cache.follow_addresses(alone=False)

    def begin(self, chains, width):
        self.chains, self.widest = chains, width

    def width(self, layer):
        return self.widest

    def attend(self, layer, queries, keys, values, slots, scale, *, selected=None, with_weights=False):
        cache, size, width = self.cache, self.chains, self.widest

        def attend(queries, keys, values, slots, selected):
            n, own = cache.chains, cache.width(layer)
            assert width in (0, *range(own, width + 1))
            selected = None if selected is None else selected[:n, ..., :own]
            out, weights = cache.attend(
                layer,
                queries[:n],
                keys[:n],
                values[:n],
                slots[:n],
                scale,
                selected=selected,
                with_weights=with_weights,
            )
            out = torch.cat([out, out.new_zeros(size - n, *out.shape[1:])])
            if weights is None:
                return out, None
            return out, pad(weights, (0, width - own, 0, 0, 0, 0, 0, size - n))

        return opaque(attend)(queries, keys, values, slots, selected)


RECORDED = StaticMode(RecordedCalls, SlabAttention)

METHODS = {
    "vanilla": {"cr": 1},
    "dms": {"cr": 8},
    "window": {"cr": 4},
    "random": {"cr": 4, "recent": 3, "pin_prompt": False, "rule": "fixed"},
    "streaming": {"cr": 4},
    "quest": {"cr": 4, "dense_layers": 1},
    "keydiff": {"cr": 4},
    "knorm": {"cr": 4},
    "triattention": {"cr": 4},
    "tova": {"cr": 4},
    "h2o": {"cr": 4},
    "snapkv": {"cr": 4},
    "rkv": {"cr": 4, "rule": "fixed", "pin_prompt": False},
    "dmc": {"cr": 2},
}


def requests(vocab=64):
    """Prompts of several lengths, chains that share them, and lengths that let the batch shrink and grow."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for problem in range(5):
        length = (3, 90, 40, 17, 61)[problem]
        ids = tuple(torch.randint(0, vocab, (length,), generator=generator).tolist())
        made += [Request(f"p{problem}", chain, ids, 12 + 29 * chain + 11 * problem, (16, 64)) for chain in range(4)]
    return made


class _Waiting(State):
    capturable = True

    def begin(self, step):
        self._lens, self._longest = step.lens, int(step.lens.max())

    def write_slots(self, layer, layer_input):
        assert self._lens[layer].shape[0] <= layer_input.keys.shape[0]
        return self._lens[layer]


@dataclass
class Waiting(Vanilla):
    """Vanilla, but each step waits for the device."""

    name = "waiting"
    state = _Waiting


class _Counting(State):
    capturable = True
    steps = 0

    def begin(self, step):
        self._lens, self.steps = step.lens, self.steps + 1

    def write_slots(self, layer, layer_input):
        # Every third step overwrites each row's first entry.
        return self._lens[layer] * (self.steps % 3 > 0)


@dataclass
class Counting(Vanilla):
    """What a step does depends on a number of Python's."""

    name = "counting"
    state = _Counting
