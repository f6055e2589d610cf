"""The ragged KV cache: every (layer, chain, KV head) is a row with its own length and its own storage."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyperscale.kv.places import Ints, Places
from hyperscale.kv.prompt import Prompt, front
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


class RaggedCache:
    """Live entries of all chains of a batch, and attention over them.

    A row lives in the slab of the smallest capacity that fits its own length; when it is full it moves to the next and
    its old place is used again. Chains are numbered densely from 0; row ``chain * kv_heads + head`` of each layer is
    that head of that chain. An evicted entry's slot is overwritten by the entry that evicts it, so nothing dead is ever
    kept; entries a prompt evicted are never stored.

    Attributes:
        chains: Number of chains held.
        lens: (layers, chain slots, kv_heads) int64, live entries of each row; valid for the first ``chains`` slots.
        read: As lens: entries that the last step read, where a selector chose them.
    """

    def __init__(
        self, layers: int, kv_heads: int, head_dim: int, slots: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.layers, self.kv_heads, self.head_dim = layers, kv_heads, head_dim
        self.dtype, self.device = dtype, device
        self.chains = 0
        self.lens = torch.zeros(layers, slots, kv_heads, dtype=torch.int64, device=device)
        self.read = torch.zeros_like(self.lens)
        self._places = [Places(slots * kv_heads) for _ in range(layers)]
        self._slabs: list[dict[int, Slab]] = [{} for _ in range(layers)]
        self._reading: list[list[Slab]] = []
        self._index = torch.zeros(layers, 4, 0, dtype=torch.int64, device=device)
        self._counts = torch.arange(0, device=device)

    @property
    def allocated_bytes(self) -> int:
        """Bytes of all slabs, used or not."""
        return sum(slab.nbytes for slabs in self._slabs for slab in slabs.values())

    @property
    def live_entries(self) -> int:
        """Live (key, value) pairs over all layers, chains and heads; waits for the device."""
        return int(self.lens[:, : self.chains].sum())

    def row(self, layer: int, chain: int, head: int) -> tuple[Tensor, Tensor]:
        """Live keys and values of one row, (entries, head_dim) each, in storage order; for inspection."""
        number = chain * self.kv_heads + head
        places = self._places[layer]
        slab = self._slabs[layer][int(places.size[number])]
        place, length = int(places.place[number]), int(self.lens[layer, chain, head])
        return slab.keys[place, :length], slab.values[place, :length]

    # -- structure: chains enter, rows outgrow their class, chains leave; then `reindex` ----------------------------

    def admit(self, prompt: Prompt, lens: Ints, copies: int) -> None:
        """Append ``copies`` chains that start from a prompt.

        Args:
            prompt: The prompt's live entries.
            lens: ``prompt.lens`` on the host.
            copies: Number of chains.
        """
        first = self.chains
        self.chains += copies
        self.lens[:, first : self.chains] = prompt.lens[:, None]
        starts = np.arange(first, self.chains)[:, None] * self.kv_heads
        for layer in range(self.layers):
            sizes = np.array([capacity(int(length)) for length in lens[layer]])
            for size in np.unique(sizes):
                heads = np.flatnonzero(sizes == size)
                rows = (starts + heads).ravel()
                slab = self._slab(layer, int(size))
                places = slab.extend(len(rows))
                self._places[layer].put(rows, int(size), places.start)
                width = min(int(size), prompt.length)
                source = self._upload(np.tile(heads, copies))
                slab.keys[places, :width] = prompt.keys[layer][source, :width]
                slab.values[places, :width] = prompt.values[layer][source, :width]
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

    # -- one decode step --------------------------------------------------------------------------------------------

    def width(self, layer: int) -> int:
        """The most slots that any row of a layer has room for."""
        return max((slab.size for slab in self._reading[layer]), default=0)

    def attend(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        slots: Tensor,
        scale: float,
        *,
        chosen: Tensor | None = None,
        weighted: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Write one entry into every row of a layer, then attend to all live entries, or to those that are chosen.

        Args:
            layer: Layer index.
            queries: (chains, query_heads, head_dim), after RoPE.
            keys: (chains, kv_heads, head_dim), after RoPE.
            values: (chains, kv_heads, head_dim).
            slots: (chains, kv_heads) int64, the slot each row writes to: a live one to overwrite, or the row's length
                to append.
            scale: Factor on the scores.
            chosen: (chains, kv_heads, group, `width`) bool by slot, what is read; all if None. What the query heads of
                a group read together counts once, in `read`.
            weighted: Whether the weights are wanted.

        Returns:
            (chains, query_heads, head_dim), and the attention weights (chains, kv_heads, group, `width`) float32.
        """
        order, position, base, _ = self._index[layer].unbind(0)
        rows = order.shape[0]
        q = queries.reshape(rows, -1, self.head_dim).index_select(0, order)
        k = keys.reshape(rows, self.head_dim).index_select(0, order)
        v = values.reshape(rows, self.head_dim).index_select(0, order)
        target = base + slots.reshape(rows).index_select(0, order)
        lens = self.lens[layer, : self.chains]
        torch.maximum(lens, slots + 1, out=lens)
        out = torch.empty_like(q)
        alive = torch.zeros((), dtype=self.dtype, device=self.device).expand(rows)
        shape = (rows, q.shape[1], self.width(layer))
        picked = None if chosen is None else chosen.reshape(shape).index_select(0, order)
        read = torch.empty_like(order)
        every = torch.zeros(shape, dtype=torch.float32, device=self.device) if weighted else None
        start = 0
        for slab in self._reading[layer]:
            n = slab.count
            here = slice(start, start + n)
            start += n
            slab.keys.view(-1, self.head_dim).index_copy_(0, target[here], k[here])
            slab.values.view(-1, self.head_dim).index_copy_(0, target[here], v[here])
            slab.bias.view(-1).index_copy_(0, target[here], alive[here])
            scores = torch.baddbmm(slab.bias[:n], q[here], slab.keys[:n].transpose(1, 2), alpha=scale)
            if picked is not None:
                mine = picked[here, :, : slab.size] & (slab.bias[:n] == 0)
                read[here] = mine.any(1).sum(-1)
                scores.masked_fill_(~mine, float("-inf"))
            weights = torch.softmax(scores, dim=-1, dtype=torch.float32)
            if every is not None:
                every[here, :, : slab.size] = weights
            torch.bmm(weights.to(self.dtype), slab.values[:n], out=out[here])
        if picked is not None:
            self.read[layer, : self.chains] = read.index_select(0, position).view(lens.shape)
        found = None if every is None else every.index_select(0, position).view(*lens.shape, *shape[1:])
        return out.index_select(0, position).view(queries.shape), found

    def full(self, chains: int) -> Tensor:
        """(layers, chains * kv_heads) bool on the device: rows without a free slot."""
        rows = chains * self.kv_heads
        return self.lens[:, :chains].reshape(self.layers, rows) >= self._index[:, 3, :rows]

    # -- internals --------------------------------------------------------------------------------------------------

    def _slab(self, layer: int, size: int) -> Slab:
        slabs = self._slabs[layer]
        if size not in slabs:
            slabs[size] = Slab(size, self.head_dim, self.dtype, self.device)
        return slabs[size]

    def _cut(
        self, layer: int, chains: Tensor, numbers: Ints, size: int, keep: Callable[[int, Tensor, Rows], Tensor]
    ) -> None:
        """`prune` for one layer and the chains whose rows, ``numbers`` (chains, kv_heads), live in one slab."""
        slab, shape = self._slabs[layer][size], (*numbers.shape, size)
        at = self._upload(self._places[layer].place[numbers.ravel()])
        keys, values = slab.keys[at], slab.values[at]
        live = (slab.bias[at] == 0).view(shape)
        kept = keep(layer, chains, Rows(keys.view(*shape, -1), values.view(*shape, -1), live)).view(-1, size)
        order = front(kept)[..., None].expand_as(keys)
        keys, values, lens = keys.gather(1, order), values.gather(1, order), kept.sum(1)
        self.lens[layer, chains] = lens.view(numbers.shape)
        dead = torch.arange(size, device=self.device) >= lens[:, None]
        bias = torch.zeros_like(slab.bias[at]).masked_fill_(dead[:, None], float("-inf"))
        sizes = np.array([capacity(int(length)) for length in lens.cpu()])
        for new in np.unique(sizes):
            some = np.flatnonzero(sizes == new)
            those, rows = self._upload(some), numbers.ravel()[some]
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
                self._vacate(layer, rows, size)
                self._places[layer].put(rows, int(new), taken.start)
                at = self._upload(self._places[layer].place[numbers.ravel()])  # rows that stayed may have moved

    def _vacate(self, layer: int, rows: Ints, size: int) -> None:
        holes, movers = self._places[layer].vacate(rows, size)
        self._slabs[layer][size].drop(self._upload(holes), self._upload(movers), len(rows))

    def _upload(self, array: Ints) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, non_blocking=True)
