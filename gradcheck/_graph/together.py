"""Small tensors taken together as one vector: fewer ops, where each op costs more than its work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._graph.finite import half_amount

_SMALL = 1024  # entries of a tensor, of which a copy costs less than an op
_VECTOR = 16384  # entries of all of them


class Together:
    """Tensors of a graph that XLA does not compile; the small ones of one dtype side by side.

    Args:
        tensors: Floating or complex, at least one.

    Attributes:
        finite: Whether the sums of the squares are finite, bool. They are not where an entry is not, nor where they
            overflow.
        layout: Which tensors are where in `rows`.
        rows: What tells these sums later, if it is kept.
    """

    def __init__(self, tensors: Sequence[Any]) -> None:
        self._sizes = [t.shape.num_elements() for t in tensors]
        self._packs = list(_packs(tensors, self._sizes))
        self.layout = tuple((k, self._sizes[k]) for pack in self._packs for k in pack)
        self._vectors = [tf.concat([tf.reshape(tensors[k], [-1]) for k in pack], 0) for pack in self._packs]
        packed = {k for pack in self._packs for k in pack}
        self._single = {k: t for k, t in enumerate(tensors) if k not in packed}
        halves = [half_amount(t) for t in self._single.values()]
        dtypes = {h.dtype for h in halves}
        kept = halves if len(dtypes) == 1 else [tf.cast(h, tf.float64) for h in halves]
        self.rows = [*([tf.stack(kept)] if kept else []), *self._vectors]
        self.finite = _are_finite([*halves, *map(half_amount, self._vectors)])

    def amounts(self, rows: Sequence[Any]) -> list[float]:
        """The sums of the squares, in the order of the tensors, from the values that `rows` had, as NumPy arrays."""
        rows = [row.astype(np.float64) for row in rows]
        found = dict(zip(self._single, 2 * rows[0], strict=True)) if self._single else {}
        for pack, row in zip(self._packs, rows[-len(self._packs) :] if self._packs else [], strict=True):
            parts = np.split(row, np.cumsum([self._sizes[k] for k in pack])[:-1])
            found.update((k, np.sum(part**2)) for k, part in zip(pack, parts, strict=True))
        return [float(found[k]) for k in range(len(found))]

    def apart(self) -> list[Any]:
        """The tensors, those that are small as vectors: so a branch takes one tensor for all of them."""
        found = dict(self._single)
        for pack, vector in zip(self._packs, self._vectors, strict=True):
            found.update(zip(pack, tf.split(vector, [self._sizes[k] for k in pack]), strict=True))
        return [found[k] for k in range(len(found))]


def _packs(tensors: Sequence[Any], sizes: Sequence[int | None]) -> Iterator[list[int]]:
    """The positions of small tensors, by their dtype; of none a single one."""
    found: dict[Any, list[int]] = {tf.float32: [], tf.float64: []}
    for k, (tensor, size) in enumerate(zip(tensors, sizes, strict=True)):
        pack = found.get(tensor.dtype)
        if pack is not None and size is not None and size <= min(_SMALL, _VECTOR - sum(sizes[p] or 0 for p in pack)):
            pack.append(k)
    yield from (pack for pack in found.values() if len(pack) > 1)


def _are_finite(amounts: Sequence[Any]) -> Any:
    by_dtype: dict[Any, list[Any]] = {}
    for amount in amounts:
        by_dtype.setdefault(amount.dtype, []).append(amount)
    sums = [tf.math.is_finite(tf.add_n(each) if len(each) > 1 else each[0]) for each in by_dtype.values()]
    return sums[0] if len(sums) == 1 else tf.reduce_all(tf.stack(sums))
