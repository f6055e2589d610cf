"""The ragged KV cache: every (layer, chain, KV head) is a row with its own length and its own storage."""

import torch
from torch import Tensor

from hyperscale.kv.storage import Storage


class RaggedCache(Storage):
    """Live entries of all chains of a batch, and attention over them; see `Storage` for how they are kept.

    A quantised entry is rounded when it is written, so the step that writes it reads it rounded as well; while a slab
    is attended to, its keys or values are in memory in the model's own type.

    After any change of the structure `Storage.reindex` brings what `attend` reads up to date.
    """

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
        k = self.codec.encode(keys.reshape(rows, self.head_dim)).index_select(0, order)
        v = self.codec.encode(values.reshape(rows, self.head_dim)).index_select(0, order)
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
            slab.keys.view(-1, self.codec.width).index_copy_(0, target[here], k[here])
            slab.values.view(-1, self.codec.width).index_copy_(0, target[here], v[here])
            slab.bias.view(-1).index_copy_(0, target[here], alive[here])
            scores = torch.baddbmm(slab.bias[:n], q[here], self._read(slab.keys[:n]).transpose(1, 2), alpha=scale)
            if picked is not None:
                mine = picked[here, :, : slab.size] & (slab.bias[:n] == 0)
                read[here] = mine.any(1).sum(-1)
                scores.masked_fill_(~mine, float("-inf"))
            weights = torch.softmax(scores, dim=-1, dtype=torch.float32)
            if every is not None:
                every[here, :, : slab.size] = weights
            torch.bmm(weights.to(self.dtype), self._read(slab.values[:n]), out=out[here])
        if picked is not None:
            self.read[layer, : self.chains] = read.index_select(0, position).view(lens.shape)
        found = None if every is None else every.index_select(0, position).view(*lens.shape, *shape[1:])
        return out.index_select(0, position).view(queries.shape), found

    def full(self, chains: int) -> Tensor:
        """(layers, chains * kv_heads) bool on the device: rows without a free slot."""
        rows = chains * self.kv_heads
        return self.lens[:, :chains].reshape(self.layers, rows) >= self._index[:, 3, :rows]

    def _read(self, kept: Tensor) -> Tensor:
        """Keys or values of a slab in the model's own type, good until the next are read."""
        if self.codec.stored == self.dtype:
            return self.codec.decode(kept)
        size = kept.shape[0] * kept.shape[1] * self.head_dim
        if size > len(self._room):
            self._room = torch.empty(size, dtype=torch.float32, device=self.device)
        return self.codec.decode(kept, self._room)
