"""Keeps what a `State` knows of requests by slot of a worker's tables, where the state itself knows chains by number.

In a decode step the rows of the batch are copied to the front of the state's own tensors, where it finds its chains,
and back afterwards.
"""

from torch import Tensor

from hyperscale.methods.core.base import State


class StoredState:
    """What a state keeps, by slot.

    Attributes:
        tensors: As the state's own (`State.tensors`), (any, slots, …); none before `fit`.
    """

    def __init__(self, state: State, count: int) -> None:
        """Nothing kept yet.

        Args:
            state: The state.
            count: Number of slots.
        """
        self._state, self._count = state, count
        self.tensors: list[Tensor] = []

    def load(self, slots: Tensor) -> None:
        """Bring what is kept of some slots, (requests,) int64, to the state's rows in front."""
        self.fit()
        for rows, stored in zip(self._state.tensors, self.tensors, strict=True):
            rows[:, : len(slots)] = stored[:, slots]

    def save(self, slots: Tensor) -> None:
        """Take the state's rows in front back to their slots, (requests,) int64."""
        self.fit()
        for rows, stored in zip(self._state.tensors, self.tensors, strict=True):
            stored[:, slots] = rows[:, : len(slots)]

    def fit(self) -> None:
        """Widen what is kept to what the state has widened its tensors to."""
        for index, rows in enumerate(self._state.tensors):
            shape = (rows.shape[0], self._count, *rows.shape[2:])
            if index == len(self.tensors):
                self.tensors.append(rows.new_zeros(shape))
            old = self.tensors[index]
            if old.shape != shape:
                self.tensors[index] = rows.new_zeros(shape)
                self.tensors[index][tuple(slice(size) for size in old.shape)] = old
