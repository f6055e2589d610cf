"""The ragged KV cache: every (layer, chain, KV head) is a row with its own length and its own storage.

How it lies in memory. A layer has a few *slabs*, each a dense block of rows of one capacity (32, 64, 96, 128, … slots).
A row lives at a *place* in the slab of the smallest capacity that fits its own length; when it is full it moves to the
next larger slab, and the place that it leaves is filled with the slab's last row. `RowIndex` keeps, on the host, which
slab and place each row has; `Slab` keeps the tensors.

Decoding reads the slabs one after another, each with plain batched matrix products. Rows are therefore computed in the
order in which they lie in the slabs, while callers number them ``chain * kv_heads + head``; the *read index*, made by
`RaggedCache.reindex` after every change of the structure, translates between the two orders.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyperscale.kv.formats import AUTO
from hyperscale.kv.prefilled import PrefilledPrompt, live_first_order
from hyperscale.kv.quantization import make_codec
from hyperscale.kv.row_addresses import RowAddresses
from hyperscale.kv.row_entries import Choice, RowEntries
from hyperscale.kv.row_index import Ints, RowIndex
from hyperscale.kv.slab import Slab, capacity


def _pass_bytes(device: torch.device) -> int:
    """Keys that a pass of a pruning copies; values are as much again, and scores a few times as much.

    A GPU waits for launches, so it gets as many rows at once as memory allows. A CPU is fastest within its caches.
    """
    return 64 << 20 if device.type == "cuda" else 1 << 20


class RaggedCache:
    """Live entries of all chains of a batch, and attention over them.

    Chains are numbered densely from 0. An evicted entry's slot is overwritten by the entry that evicts it, so nothing
    dead is ever kept; entries that a prompt evicted are never stored. A quantised entry is rounded when it is written,
    so the step that writes it reads it rounded as well; while a slab is attended to, its keys or values are in memory
    in the model's own type.

    The structure changes by `admit`, `grow`, `prune` and `remove`; call `reindex` once after any of them and before
    the next `attend`.

    Attributes:
        codec: How keys and values are stored.
        chains: Number of chains held.
        lens: (layers, max_chains, kv_heads) int64, live entries of each row; valid for the first ``chains`` of them.
        read: As lens: entries that the last step read, where a selector chose them.
        addresses: Where rows lie, if `follow_addresses` has been called: for kernels that read rows by themselves.
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        max_chains: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        kv_dtype: str = AUTO,
    ) -> None:
        """An empty cache.

        Args:
            layers: Number of layers.
            kv_heads: KV heads of a layer.
            head_dim: Size of a key or value.
            max_chains: The most chains.
            dtype: The model's own type.
            device: Where entries live.
            kv_dtype: What keys and values are stored in, see `hyperscale.kv.formats`.

        Raises:
            EngineError: Keys and values of this size cannot be stored as ``kv_dtype``.
        """
        self.layers, self.kv_heads, self.head_dim = layers, kv_heads, head_dim
        self.dtype, self.device = dtype, device
        self.codec = make_codec(kv_dtype, head_dim, dtype)
        self.chains = 0
        self.lens = torch.zeros(layers, max_chains, kv_heads, dtype=torch.int64, device=device)
        self.read = torch.zeros_like(self.lens)
        self._row_index = [RowIndex(max_chains * kv_heads) for _ in range(layers)]
        self._slabs: list[dict[int, Slab]] = [{} for _ in range(layers)]  # by capacity
        self._changed: set[int] = set()  # layers whose structure has changed since the last `reindex`
        # What `attend` uses, made by `reindex`: the slabs in use, and the translation between the two orders of rows.
        self._slabs_in_use: list[list[Slab]] = [[] for _ in range(layers)]
        self._read_tables: list[Ints] = [np.zeros((4, 0), dtype=np.int64)] * layers  # of each layer, on the host
        self._read_index = torch.zeros(layers, 4, 0, dtype=torch.int64, device=device)
        self._indexed = True
        self.addresses: RowAddresses | None = None
        self._decode_buffer = torch.empty(0, dtype=torch.float32, device=device)

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
        keys, values = self.stored_row(layer, chain, head)
        return self.codec.decode(keys), self.codec.decode(values)

    def stored_row(self, layer: int, chain: int, head: int) -> tuple[Tensor, Tensor]:
        """The same as they are stored, (entries, codec.width) each."""
        row = chain * self.kv_heads + head
        index = self._row_index[layer]
        slab = self._slabs[layer][int(index.size[row])]
        place, length = int(index.place[row]), int(self.lens[layer, chain, head])
        return slab.keys[place, :length], slab.values[place, :length]

    def width(self, layer: int) -> int:
        """The most slots that any row of a layer has room for."""
        return max((slab.size for slab in self._slabs_in_use[layer]), default=0)

    def full_rows(self, chains: int) -> Tensor:
        """(layers, chains * kv_heads) bool on the device: which rows of the first chains have no free slot."""
        rows = chains * self.kv_heads
        slots = self._read_index[:, 3] if self.addresses is None else self.addresses.slots
        return self.lens[:, :chains].reshape(self.layers, rows) >= slots[:, :rows]

    def follow_addresses(self, *, alone: bool) -> RowAddresses:
        """Keep `addresses` up to date from now on, while there are no chains yet.

        Args:
            alone: Whether `attend` is not called any more, so that its index need not be kept.
        """
        assert not self.chains, "addresses are followed from the beginning"
        self._indexed = not alone
        self.addresses = RowAddresses(self.layers, self.lens[0].numel(), self.device)
        return self.addresses

    # -- attention --------------------------------------------------------------------------------------------------

    def attend(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        slots: Tensor,
        scale: float,
        *,
        selected: Tensor | None = None,
        with_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Write one entry into every row of a layer, then attend to all live entries, or to those selected.

        Args:
            layer: Layer index.
            queries: (chains, query_heads, head_dim), after RoPE.
            keys: (chains, kv_heads, head_dim), after RoPE.
            values: (chains, kv_heads, head_dim).
            slots: (chains, kv_heads) int64, the slot each row writes to: a live one to overwrite, or the row's length
                to append.
            scale: Factor on the scores.
            selected: (chains, kv_heads, group, `width`) bool by slot, what is read; all if None. What the query heads
                of a group read together counts once, in `read`.
            with_weights: Whether to return the attention weights.

        Returns:
            (chains, query_heads, head_dim), and the attention weights (chains, kv_heads, group, `width`) float32.
        """
        # ``order`` and ``position`` translate from callers' rows to rows as they lie in the slabs, and back.
        order, position, base, _ = self._read_index[layer].unbind(0)
        rows = order.shape[0]
        q = queries.reshape(rows, -1, self.head_dim).index_select(0, order)
        k = self.codec.encode(keys.reshape(rows, self.head_dim)).index_select(0, order)
        v = self.codec.encode(values.reshape(rows, self.head_dim)).index_select(0, order)
        target = base + slots.reshape(rows).index_select(0, order)  # slots of a slab, counted through all its rows
        lens = self.lens[layer, : self.chains]
        torch.maximum(lens, slots + 1, out=lens)  # a row that overwrites keeps its length

        out = torch.empty_like(q)
        live = torch.zeros((), dtype=self.dtype, device=self.device).expand(rows)  # the bias of a live slot
        shape = (rows, q.shape[1], self.width(layer))
        selection = None if selected is None else selected.reshape(shape).index_select(0, order)
        read = torch.empty_like(order)
        all_weights = torch.zeros(shape, dtype=torch.float32, device=self.device) if with_weights else None
        start = 0
        for slab in self._slabs_in_use[layer]:
            n = slab.count
            part = slice(start, start + n)  # the slab's rows among all rows of the layer
            start += n
            slab.keys.view(-1, self.codec.width).index_copy_(0, target[part], k[part])
            slab.values.view(-1, self.codec.width).index_copy_(0, target[part], v[part])
            slab.bias.view(-1).index_copy_(0, target[part], live[part])
            # The bias, -inf in dead slots, is added by the product itself: (rows, group, size).
            scores = torch.baddbmm(slab.bias[:n], q[part], self._decode(slab.keys[:n]).transpose(1, 2), alpha=scale)
            if selection is not None:
                visible = selection[part, :, : slab.size] & (slab.bias[:n] == 0)
                read[part] = visible.any(1).sum(-1)
                scores.masked_fill_(~visible, float("-inf"))
            weights = torch.softmax(scores, dim=-1, dtype=torch.float32)
            if all_weights is not None:
                all_weights[part, :, : slab.size] = weights
            torch.bmm(weights.to(self.dtype), self._decode(slab.values[:n]), out=out[part])

        if selection is not None:
            self.read[layer, : self.chains] = read.index_select(0, position).view(lens.shape)
        if all_weights is not None:
            all_weights = all_weights.index_select(0, position).view(*lens.shape, *shape[1:])
        return out.index_select(0, position).view(queries.shape), all_weights

    def _decode(self, stored: Tensor) -> Tensor:
        """Keys or values of a slab in the model's own type; the next call may overwrite them."""
        if self.codec.stored == self.dtype:
            return self.codec.decode(stored)
        size = stored.shape[0] * stored.shape[1] * self.head_dim
        if size > len(self._decode_buffer):
            self._decode_buffer = torch.empty(size, dtype=torch.float32, device=self.device)
        return self.codec.decode(stored, self._decode_buffer)

    # -- structure: chains enter, rows outgrow their slab, chains are pruned, chains leave; then `reindex` -----------

    def admit(self, prompt: PrefilledPrompt, lens: Ints, copies: int, *, encoded: bool = False) -> None:
        """Append ``copies`` chains that start from a prompt.

        Args:
            prompt: The prompt's live entries.
            lens: ``prompt.lens`` on the host.
            copies: Number of chains.
            encoded: Whether the prompt's keys and values are as stored already, see `stored_row`.
        """
        first = self.chains
        self.chains += copies
        self._changed.update(range(self.layers))
        self.lens[:, first : self.chains] = prompt.lens[:, None]
        first_rows = np.arange(first, self.chains)[:, None] * self.kv_heads
        for layer in range(self.layers):
            keys, values = prompt.keys[layer], prompt.values[layer]
            if not encoded:
                keys, values = self.codec.encode(keys), self.codec.encode(values)
            sizes = np.array([capacity(int(length)) for length in lens[layer]])
            # Heads of one capacity go, for all copies at once, to consecutive places of one slab.
            for size in np.unique(sizes):
                heads = np.flatnonzero(sizes == size)
                rows = (first_rows + heads).ravel()
                slab = self._slab(layer, int(size))
                places = slab.extend(len(rows))
                self._row_index[layer].assign(rows, int(size), places.start)
                width = min(int(size), prompt.length)
                source = self._upload(np.tile(heads, copies))
                slab.keys[places, :width] = keys[source, :width]
                slab.values[places, :width] = values[source, :width]
                slab.bias[places] = self._bias(int(size), prompt.lens[layer][source])

    def grow(self, full: NDArray[np.bool_]) -> None:
        """Move rows that are full to the next capacity.

        Args:
            full: (layers, rows), which of the first rows of each layer to move.
        """
        for layer in np.flatnonzero(full.any(axis=1)).tolist():
            self._changed.add(layer)
            rows = np.flatnonzero(full[layer])
            sizes = self._row_index[layer].size[rows]
            for size in np.unique(sizes):
                moving = rows[sizes == size]
                source, target = self._slab(layer, int(size)), self._slab(layer, capacity(int(size)))
                old_places = self._upload(self._row_index[layer].place[moving])
                places = target.extend(len(moving))
                target.keys[places, : source.size] = source.keys[old_places]
                target.values[places, : source.size] = source.values[old_places]
                target.bias[places, :, : source.size] = source.bias[old_places]
                self._release(layer, moving, int(size))
                self._row_index[layer].assign(moving, target.size, places.start)

    def prune(self, chains: list[int], choose: Choice) -> None:
        """Keep only some entries of chains all of whose heads hold equally many; their order stays.

        Args:
            chains: Their numbers.
            choose: Says what stays.
        """
        self._changed.update(range(self.layers))
        numbers = np.asarray(chains)
        rows = numbers[:, None] * self.kv_heads + np.arange(self.kv_heads)
        sizes = np.stack([index.size[rows] for index in self._row_index])  # (layers, chains, kv_heads)
        assert (sizes == sizes[..., :1]).all(), "a chain to be pruned holds equally many entries in all heads"
        # What has one capacity is pruned together, whatever its layer and chain, as far as memory allows.
        for size in np.unique(sizes[..., 0]):
            layers, members = np.nonzero(sizes[..., 0] == size)
            row_bytes = int(size) * self.head_dim * self.kv_heads * self.dtype.itemsize
            step = max(_pass_bytes(self.device) // row_bytes, 1)
            for begin in range(0, len(layers), step):
                part = slice(begin, begin + step)
                self._prune_rows(layers[part], numbers[members[part]], rows[members[part]], int(size), choose)

    def remove(self, finished: list[int]) -> tuple[list[int], list[int]]:
        """Release chains; the last chains take over the free numbers.

        Returns:
            dst, src: chain ``src[i]`` is from now on called ``dst[i]``.
        """
        heads = np.arange(self.kv_heads)

        def rows_of(chains: list[int]) -> Ints:
            return (np.asarray(chains, dtype=np.int64)[:, None] * self.kv_heads + heads).ravel()

        self.chains -= len(finished)
        self._changed.update(range(self.layers))
        leaving = set(finished)
        # Numbers below the new count that became free, and chains beyond it that stay: there are equally many.
        dst = [chain for chain in sorted(finished) if chain < self.chains]
        src = [chain for chain in range(self.chains, self.chains + len(finished)) if chain not in leaving]
        released, dst_rows, src_rows = rows_of(sorted(finished)), rows_of(dst), rows_of(src)
        for layer, index in enumerate(self._row_index):
            sizes = index.size[released]
            for size in np.unique(sizes):
                self._release(layer, released[sizes == size], int(size))
            if dst:
                index.renumber(dst_rows, src_rows)
        if dst:
            self.lens[:, self._upload(np.asarray(dst))] = self.lens[:, self._upload(np.asarray(src))]
        return dst, src

    def reindex(self) -> None:
        """Rebuild what `attend` reads from the structure; call once after any change."""
        rows = self.chains * self.kv_heads
        for layer in self._changed:
            index, slabs = self._row_index[layer], self._slabs[layer]
            self._slabs_in_use[layer] = in_use = [slabs[size] for size in sorted(slabs) if slabs[size].count]
            if self._indexed:
                sizes, counts = [slab.size for slab in in_use], [slab.count for slab in in_use]
                self._read_tables[layer] = index.read_table(rows, sizes, counts)
            if self.addresses is not None:
                self.addresses.note(layer, index, slabs)
        self._changed.clear()
        if self._indexed:
            self._read_index = self._upload(np.stack(self._read_tables))
        if self.addresses is not None:
            self.addresses.upload()

    def _prune_rows(self, layers: Ints, chains: Ints, rows: Ints, size: int, choose: Choice) -> None:
        """`prune` for some layers of some chains, whose rows, (batch, kv_heads), have one capacity; layers ascend."""
        shape = (*rows.shape, size)
        firsts = np.searchsorted(layers, np.arange(self.layers + 1)) * self.kv_heads  # where each layer's rows begin
        spans = {layer: slice(firsts[layer], firsts[layer + 1]) for layer in np.unique(layers).tolist()}
        flat = rows.ravel()
        places = self._upload(
            np.concatenate([self._row_index[layer].place[flat[part]] for layer, part in spans.items()])
        )
        slabs = [(self._slabs[layer][size], places[part]) for layer, part in spans.items()]
        # Copies, so that places may be overwritten below.
        keys, values = (torch.cat([getattr(slab, name)[at] for slab, at in slabs]) for name in ("keys", "values"))
        live = (torch.cat([slab.bias[at] for slab, at in slabs]) == 0).view(shape)
        read_keys, read_values = (self.codec.decode(vectors).view(*shape, -1) for vectors in (keys, values))
        layer_numbers, chain_numbers = self._upload(layers), self._upload(chains)
        stays = choose(layer_numbers, chain_numbers, RowEntries(read_keys, read_values, live)).view(-1, size)

        # What stays moves to the front as it is stored: nothing is rounded a second time.
        order = live_first_order(stays)[..., None].expand_as(keys)
        keys, values, lens = keys.gather(1, order), values.gather(1, order), stays.sum(1)
        self.lens[layer_numbers, chain_numbers] = lens.view(rows.shape)
        bias = self._bias(size, lens)
        new_sizes = np.array([capacity(length) for length in lens.tolist()])
        for layer, part in spans.items():
            self._put_back(layer, flat[part], new_sizes[part], size, keys[part], values[part], bias[part])

    def _put_back(
        self, layer: int, rows: Ints, new_sizes: Ints, size: int, keys: Tensor, values: Tensor, bias: Tensor
    ) -> None:
        """Store pruned rows of a layer; those that still need their capacity in place, the others in smaller slabs."""
        for new_size in np.unique(new_sizes):
            members = np.flatnonzero(new_sizes == new_size)
            moving = rows[members]
            picked = slice(None) if len(members) == len(rows) else self._upload(members)
            target = self._slab(layer, int(new_size))
            if new_size == size:
                into: slice | Tensor = self._upload(self._row_index[layer].place[moving])
            else:
                into = target.extend(len(members))
            target.keys[into] = keys[picked, : target.size]
            target.values[into] = values[picked, : target.size]
            target.bias[into] = bias[picked, :, : target.size]
            if isinstance(into, slice):
                # Releasing fills holes with the slab's last rows: rows of ours that stay may move.
                self._release(layer, moving, size)
                self._row_index[layer].assign(moving, int(new_size), into.start)

    def _slab(self, layer: int, size: int) -> Slab:
        slabs = self._slabs[layer]
        if size not in slabs:
            slabs[size] = Slab(size, self.codec.width, self.codec.stored, dtype=self.dtype, device=self.device)
        return slabs[size]

    def _bias(self, size: int, lens: Tensor) -> Tensor:
        """(rows, 1, size) of rows whose first ``lens`` (rows,) slots live: 0 there and -inf beyond."""
        dead = torch.arange(size, device=self.device) >= lens[:, None]
        bias = torch.zeros(len(lens), 1, size, dtype=self.dtype, device=self.device)
        return bias.masked_fill_(dead[:, None], float("-inf"))

    def _release(self, layer: int, rows: Ints, size: int) -> None:
        """Give back the places of some rows of one slab."""
        holes, movers = self._row_index[layer].release(rows, size)
        self._slabs[layer][size].drop(self._upload(holes), self._upload(movers), len(rows))

    def _upload(self, array: Ints) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, non_blocking=True)
