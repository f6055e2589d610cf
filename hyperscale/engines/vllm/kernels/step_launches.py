"""Launches a kernel in one layer of a step after another: what the layers share is put together in the first one.

To find a compiled kernel by its two dozen arguments takes Triton longer than to launch it, and putting the arguments
together takes Python as long again. Decode steps are CUDA graphs, which pay for neither; attention of steps with
prompts is in none, and there a small model waits for it in every layer. Of a tensor a repeated launch hands over the
address: about tensors Triton's launcher asks the driver one by one, 3 to 7 microseconds a launch
(benchmarks/vllm_launch_cost.py).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

_ALIGNMENT = 16  # bytes: Triton compiles one kernel for pointers at multiples of it, and others for the rest


class _Kept(NamedTuple):
    """A launch that can be made again.

    Attributes:
        kernel: The compiled kernel, with its grid.
        traits: Of the layer's arguments, see `_traits`.
        shared: The objects that the other arguments were taken from.
        others: The other arguments, in the order of the kernel's parameters, those known when it is compiled among
            them: the launcher passes over these.
        addresses: The same, with addresses in place of tensors, which ``others`` keeps where they are.
    """

    kernel: Any
    traits: list[Any]
    shared: Sequence[object]
    others: list[Any]
    addresses: list[Any]


class StepLaunches:
    """The launches of a step; one step's alone, as grids and arguments are the step's.

    Or, of a kernel that runs once a step and whose grid is always the same, those of all steps.

    A kernel's parameters begin with those whose arguments are a layer's own.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, _Kept] = {}

    def repeat(self, kernel: Any, of_layer: Sequence[Any], shared: Sequence[object]) -> bool:
        """Launch a kernel as an earlier layer did, with this layer's own arguments.

        Args:
            kernel: The kernel.
            of_layer: Its first arguments; numbers among them must not be specialised on.
            shared: The objects that the other arguments were taken from.

        Returns:
            Whether it was launched. If not, as `begin` was not called yet, or for other objects, or for tensors of
            other types, strides or alignment, which need another compiled kernel: `begin` has to be called.
        """
        kept = self._kept.get(kernel)
        if kept is None:
            return False
        own = _addresses(of_layer)
        if kept.traits != _traits(of_layer, own):
            return False
        if any(a is not b for a, b in zip(kept.shared, shared, strict=True)):
            return False
        kept.kernel(*own, *kept.addresses)
        return True

    def begin(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        of_layer: Sequence[Any],
        shared: Sequence[object],
        *others: Any,
        **named: Any,
    ) -> None:
        """Launch a kernel, and keep what other layers need for `repeat`.

        Args:
            kernel: The kernel.
            grid: Its grid.
            of_layer: As in `repeat`.
            shared: As in `repeat`.
            others: The arguments after ``of_layer``.
            named: The last ones, by their names, and options of Triton's.
        """
        compiled = kernel[grid](*of_layer, *others, **named)
        if compiled is None:  # Triton's interpreter compiles nothing
            return
        names = kernel.arg_names[len(of_layer) + len(others) :]
        full_grid = (*grid, 1, 1)[:3]
        values = [*others, *(named[name] for name in names)]
        traits = _traits(of_layer, _addresses(of_layer))
        self._kept[kernel] = _Kept(_Launcher(compiled, full_grid), traits, shared, values, _addresses(values))


class _Launcher:
    """A compiled kernel and its grid; the kernel is looked up when it is first launched again."""

    def __init__(self, compiled: Any, grid: tuple[int, ...]) -> None:
        self._compiled, self._grid = compiled, grid
        self._launch: Any = None

    def __call__(self, *arguments: Any) -> None:
        if self._launch is None:
            self._launch = self._compiled[self._grid]
        self._launch(*arguments)


def _addresses(arguments: Sequence[Any]) -> list[Any]:
    """The arguments, with addresses in place of tensors."""
    return [part.data_ptr() if isinstance(part, Tensor) else part for part in arguments]


def _traits(of_layer: Sequence[Any], addresses: Sequence[Any]) -> list[Any]:
    """What decides which compiled kernel fits tensors; numbers fit all."""
    return [
        (part.dtype, part.stride(), address % _ALIGNMENT) if isinstance(part, Tensor) else None
        for part, address in zip(of_layer, addresses, strict=True)
    ]
