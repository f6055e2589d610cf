"""Storage of the ragged KV cache: rows that come, grow, are cut and go, in slabs of equal capacity."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyperscale.kv.formats import AUTO
from hyperscale.kv.prefilled import Prompt, front
from hyperscale.kv.quantization import codec
from hyperscale.kv.row_index import Ints, Places
from hyperscale.kv.slab import Slab, capacity


@dataclass(frozen=True)
class Rows:
    """Entries of one layer of some chains, in slot order.

    Attributes:
        keys: (chains, kv_heads, slots, head_dim); stale where nothing lives.
        values: As keys.
        live: (chains, kv_heads, slots) bool.
    """

    keys: Tensor
    values: Tensor
    live: Tensor


class Storage:
    """Live entries of all chains of a batch.

    A row lives in the slab of the smallest capacity that fits its own length; when it is full it moves to the next and
    its old place is used again. Chains are numbered densely from 0; row ``chain * kv_heads + head`` of each layer is
    that head of that chain. An evicted entry's slot is overwritten by the entry that evicts it, so nothing dead is ever
    kept; entries a prompt evicted are never stored.

    Attributes:
        codec: How keys and values are kept.
        chains: Number of chains held.
        lens: (layers, chain slots, kv_heads) int64, live entries of each row; valid for the first ``chains`` slots.
        read: As lens: entries that the last step read, where a selector chose them.
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        slots: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        kv_dtype: str = AUTO,
    ) -> None:
        """An empty cache.

        Raises:
            EngineError: Keys and values of this size cannot be kept as ``kv_dtype``.
        """
        self.layers, self.kv_heads, self.head_dim = layers, kv_heads, head_dim
        self.dtype, self.device = dtype, device
        self.codec = codec(kv_dtype, head_dim, dtype)
        self.chains = 0
        self._room = torch.empty(0, dtype=torch.float32, device=device)
        self.lens = torch.zeros(layers, slots, kv_heads, dtype=torch.int64, device=device)
        self.read = torch.zeros_like(self.lens)
        self._places = [Places(slots * kv_heads) for _ in range(layers)]
        self._slabs: list[dict[int, Slab]] = [{} for _ in range(layers)]
        self._reading: list[list[Slab]] = []
        self._index = torch.zeros(layers, 4, 0, dtype=torch.int64, device=device)

    @property
    def allocated_bytes(self) -> int:
        """Bytes of all slabs, used or not."""
        return sum(slab.nbytes for slabs in self._slabs for slab in slabs.values())

    @property
    def live_entries(self) -> int:
        """Live (key, value) pairs over all layers, chains and heads; waits for the device."""
        return int(self.lens[:, : self.chains].sum())

    def row(self, layer: int, chain: int, head: int) -> tuple[Tensor, Tensor]:
        """Live keys and values of one row as they are read, (entries, head_dim) each, in storage order."""
        keys, values = self.kept(layer, chain, head)
        return self.codec.decode(keys), self.codec.decode(values)

    def kept(self, layer: int, chain: int, head: int) -> tuple[Tensor, Tensor]:
        """The same as they are stored, (entries, codec.width) each."""
        number = chain * self.kv_heads + head
        places = self._places[layer]
        slab = self._slabs[layer][int(places.size[number])]
        place, length = int(places.place[number]), int(self.lens[layer, chain, head])
        return slab.keys[place, :length], slab.values[place, :length]

    # -- structure: chains enter, rows outgrow their class, chains leave; then `reindex` ----------------------------

    def admit(self, prompt: Prompt, lens: Ints, copies: int, *, kept: bool = False) -> None:
        """Append ``copies`` chains that start from a prompt.

        Args:
            prompt: The prompt's live entries.
            lens: ``prompt.lens`` on the host.
            copies: Number of chains.
            kept: Whether the prompt's keys and values are as stored already, see `kept`.
        """
        first = self.chains
        self.chains += copies
        self.lens[:, first : self.chains] = prompt.lens[:, None]
        starts = np.arange(first, self.chains)[:, None] * self.kv_heads
        for layer in range(self.layers):
            keys, values = prompt.keys[layer], prompt.values[layer]
            if not kept:
                keys, values = self.codec.encode(keys), self.codec.encode(values)
            sizes = np.array([capacity(int(length)) for length in lens[layer]])
            for size in np.unique(sizes):
                heads = np.flatnonzero(sizes == size)
                rows = (starts + heads).ravel()
                slab = self._slab(layer, int(size))
                places = slab.extend(len(rows))
                self._places[layer].put(rows, int(size), places.start)
                width = min(int(size), prompt.length)
                source = self._upload(np.tile(heads, copies))
                slab.keys[places, :width] = keys[source, :width]
                slab.values[places, :width] = values[source, :width]
                dead = torch.arange(int(size), device=self.device) >= prompt.lens[layer][source][:, None]
                slab.bias[places] = torch.zeros_like(slab.bias[places]).masked_fill_(dead[:, None], float("-inf"))

    def grow(self, full: NDArray[np.bool_]) -> None:
        """Move rows that are full to the next capacity class.

        Args:
            full: (layers, rows), which of the first rows of each layer to move.
        """
        for layer in np.flatnonzero(full.any(axis=1)).tolist():
            rows = np.flatnonzero(full[layer])
            sizes = self._places[layer].size[rows]
            for size in np.unique(sizes):
                moving = rows[sizes == size]
                source, target = self._slab(layer, int(size)), self._slab(layer, capacity(int(size)))
                old = self._upload(self._places[layer].place[moving])
                places = target.extend(len(moving))
                target.keys[places, : source.size] = source.keys[old]
                target.values[places, : source.size] = source.values[old]
                target.bias[places, :, : source.size] = source.bias[old]
                self._vacate(layer, moving, int(size))
                self._places[layer].put(moving, target.size, places.start)

    def prune(self, chains: list[int], keep: Callable[[int, Tensor, Rows], Tensor]) -> None:
        """Keep only some entries of chains all of whose heads hold equally many; their order stays.

        Args:
            chains: Their numbers.
            keep: Called with a layer, chains of equal capacity (int64, on the device) and their entries; returns what
                stays, (chains, kv_heads, slots) bool.
        """
        heads = np.arange(self.kv_heads)
        for layer, places in enumerate(self._places):
            numbers = np.asarray(chains)[:, None] * self.kv_heads + heads
            sizes = places.size[numbers]
            assert (sizes == sizes[:, :1]).all(), "a chain to be pruned holds equally many entries in all heads"
            for size in np.unique(sizes[:, 0]):
                some = sizes[:, 0] == size
                self._cut(layer, self._upload(np.asarray(chains)[some]), numbers[some], int(size), keep)

    def remove(self, gone: list[int]) -> tuple[list[int], list[int]]:
        """Release chains; the last chains take over the free numbers.

        Returns:
            dst, src: chain ``src[i]`` is from now on called ``dst[i]``.
        """
        chains = np.asarray(sorted(gone))
        heads = np.arange(self.kv_heads)
        rows = (chains[:, None] * self.kv_heads + heads).ravel()
        self.chains -= len(gone)
        leaving = set(gone)
        dst = [chain for chain in sorted(gone) if chain < self.chains]
        src = [chain for chain in range(self.chains, self.chains + len(gone)) if chain not in leaving]
        dst_rows = (np.asarray(dst, dtype=np.int64)[:, None] * self.kv_heads + heads).ravel()
        src_rows = (np.asarray(src, dtype=np.int64)[:, None] * self.kv_heads + heads).ravel()
        for layer, places in enumerate(self._places):
            sizes = places.size[rows]
            for size in np.unique(sizes):
                self._vacate(layer, rows[sizes == size], int(size))
            if dst:
                places.renumber(dst_rows, src_rows)
        if dst:
            self.lens[:, self._upload(np.asarray(dst))] = self.lens[:, self._upload(np.asarray(src))]
        return dst, src

    def reindex(self) -> None:
        """Bring what `attend` reads up to date with the structure; call once after any change."""
        rows = self.chains * self.kv_heads
        self._reading = [[slabs[size] for size in sorted(slabs) if slabs[size].count] for slabs in self._slabs]
        tables = [
            places.index(rows, [slab.size for slab in reading], [slab.count for slab in reading])
            for places, reading in zip(self._places, self._reading, strict=True)
        ]
        self._index = self._upload(np.stack(tables))

    # -- internals --------------------------------------------------------------------------------------------------

    def _slab(self, layer: int, size: int) -> Slab:
        slabs = self._slabs[layer]
        if size not in slabs:
            slabs[size] = Slab(size, self.codec.width, self.codec.stored, dtype=self.dtype, device=self.device)
        return slabs[size]

    def _cut(
        self, layer: int, chains: Tensor, numbers: Ints, size: int, keep: Callable[[int, Tensor, Rows], Tensor]
    ) -> None:
        """`prune` for one layer and the chains whose rows, ``numbers`` (chains, kv_heads), live in one slab."""
        slab, shape = self._slabs[layer][size], (*numbers.shape, size)
        at = self._upload(self._places[layer].place[numbers.ravel()])
        keys, values = slab.keys[at], slab.values[at]
        live = (slab.bias[at] == 0).view(shape)
        read_keys, read_values = (self.codec.decode(each).view(*shape, -1) for each in (keys, values))
        stays = keep(layer, chains, Rows(read_keys, read_values, live)).view(-1, size)
        order = front(stays)[..., None].expand_as(keys)
        keys, values, lens = keys.gather(1, order), values.gather(1, order), stays.sum(1)
        self.lens[layer, chains] = lens.view(numbers.shape)
        dead = torch.arange(size, device=self.device) >= lens[:, None]
        bias = torch.zeros_like(slab.bias[at]).masked_fill_(dead[:, None], float("-inf"))
        sizes = np.array([capacity(int(length)) for length in lens.cpu()])
        for new in np.unique(sizes):
            some = np.flatnonzero(sizes == new)
            those, moving = self._upload(some), numbers.ravel()[some]
            if new == size:
                into, places = slab, at[those]
            else:
                into = self._slab(layer, int(new))
                taken = into.extend(len(some))
                places = torch.arange(taken.start, taken.stop, device=self.device)
            into.keys[places] = keys[those, : into.size]
            into.values[places] = values[those, : into.size]
            into.bias[places] = bias[those, :, : into.size]
            if new != size:
                self._vacate(layer, moving, size)
                self._places[layer].put(moving, int(new), taken.start)
                at = self._upload(self._places[layer].place[numbers.ravel()])  # rows that stayed may have moved

    def _vacate(self, layer: int, rows: Ints, size: int) -> None:
        holes, movers = self._places[layer].vacate(rows, size)
        self._slabs[layer][size].drop(self._upload(holes), self._upload(movers), len(rows))

    def _upload(self, array: Ints) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, non_blocking=True)
