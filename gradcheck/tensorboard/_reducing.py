"""What leaves a graph about tensors: a few reductions of each, and the numbers themselves where these do not do.

An op of TensorFlow costs as much on a few numbers as on thousands, and every pass over many numbers costs again. So
nothing is decided in the graph, and what NumPy can count, when many steps are written together, is left to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from gradcheck._graph.finite import half_amount
from gradcheck.tensorboard._formats import FORMATS, HEAD, LEAST, MOST, bins_of, flat
from gradcheck.tensorboard._measuring import low_counts, measured, measured_segments
from gradcheck.tensorboard._transport import takes_subnormal_for_zero

_FEW = 1024  # numbers of a tensor that leaves the graph as it is
_NUMBERS = 3  # tensors: halves of sums of squares, the largest, the smallest numbers
_ROOM = 1 << 19  # bytes of rows that are kept of a step; what is more is looked at before the next
_APART = 2  # bits of the mantissa by which bins are divided: two numbers of one bin in a row wait for each other
_WIDTHS = sorted(range(32, 1025), key=lambda width: abs(math.log(width / 64)))  # of the rows that are looked at


class Seen(NamedTuple):
    """What has left the graph in one step, and waits to be written: as little is done in each step as can be.

    Attributes:
        tensors: As they left it, the first of what `reduced` gives; or arrays.
        low: By position among the tensors with many numbers: rows that have zeros or subnormal numbers, or how many
            are zero, and how many subnormal.
        close: By position among these, the numbers of `HEAD` where reductions do not tell them.
    """

    tensors: Sequence[Any]
    low: Mapping[int, Any]
    close: Mapping[int, Sequence[float]]


class Bins(NamedTuple):
    """Bins of tensors of one dtype.

    Attributes:
        which: The positions of the tensors.
        dtype: Of TensorFlow.
        counts: [steps, tensors, bins].
    """

    which: Sequence[int]
    dtype: Any
    counts: NDArray[Any]


def reduced(
    values: Sequence[Any], *, counts: Sequence[bool], histograms: Sequence[bool]
) -> tuple[list[Any], Reduction]:
    """What is to leave the graph that is being built about tensors, and what it tells.

    Args:
        values: Tensors, or `tf.IndexedSlices`.
        counts: Whether zeros and subnormal numbers of each are counted.
        histograms: Whether bins of each are. Without both, a norm is all that is known.
    """
    vectors = [flat(value) for value in values]
    plan = Reduction([v.dtype for v in vectors], [v.shape.num_elements() for v in vectors], counts, histograms)
    many = [vectors[k] for k in plan.many]
    rows = [_in_rows(vector, values[k]) for vector, k in zip(many, plan.many, strict=True)]
    halves = _together([half_amount(row) for row in rows])
    looked = [rows[at] for at in plan.looked]
    extremes = [_together([extreme(row) for row in looked]) for extreme in (tf.reduce_max, tf.reduce_min)]
    bins = [_together([bins_of(vectors[k], _apart(dtype)) for k in which]) for dtype, which in plan.binned]
    few = [tf.concat([vectors[k] for k in which], 0) for _, which in plan.few]
    low = [tf.gather(rows[at], tf.where(_have_low(rows[at]))) for at in plan.counted]
    whole = _those(_doubtful(halves), many)
    groups = [tf.concat([whole[at] for at in group], 0) for group in plan.whole]
    return [halves, *extremes, *bins, *few, *low, *groups], plan


class Reduction:
    """What tensors that were reduced in a graph tell.

    Args:
        dtypes: Of the tensors, as real numbers.
        sizes: How many numbers each has; None where that is not known.
        counts, histograms: As `reduced` takes them.

    Attributes:
        many: The positions of the tensors that are reduced; the others leave the graph as they are.
        looked, counted: Which of `many` have their extremes taken, and their zeros counted.
        few: The positions of the others: those of one dtype leave the graph together.
        binned: By dtype, the positions of those whose bins are counted in the graph.
        whole: Which of `many` leave the graph as one tensor, where they are in doubt.
        nbytes: Of what is kept of a step until it is written, but for rows.
    """

    def __init__(
        self, dtypes: Sequence[Any], sizes: Sequence[int | None], counts: Sequence[bool], histograms: Sequence[bool]
    ) -> None:
        few = {k for k, size in enumerate(sizes) if size is not None and size <= _FEW}
        self.many = [k for k in range(len(sizes)) if k not in few]
        self.looked = [at for at, k in enumerate(self.many) if counts[k] or histograms[k]]
        self.counted = [at for at, k in enumerate(self.many) if counts[k]]
        drawn = [k for k, chosen in enumerate(histograms) if chosen]
        self.few = [*_by_dtype([k for k in drawn if k in few], dtypes), *_by_dtype(few - {*drawn}, dtypes)]
        self.binned = _by_dtype([k for k in drawn if k not in few], dtypes)
        self._dtypes, self._sizes, self._histograms = dtypes, sizes, histograms
        self._many = [dtypes[k] for k in self.many]
        self.whole = _groups([sizes[k] for k in self.many], self._many)
        self._first = _NUMBERS + len(self.binned) + len(self.few)
        bins = sum(FORMATS[dtype].bins * len(which) << _apart(dtype) for dtype, which in self.binned)
        self.nbytes = 4 * bins + sum((sizes[k] or 0) * dtype.size for dtype, which in self.few for k in which)

    def seen(self, tensors: Sequence[Any]) -> Seen:
        """What is kept of the tensors that left the graph, or of arrays of them."""
        first, rest = tensors[: self._first], tensors[self._first :]
        low: dict[int, Any] = {}
        close: dict[int, Sequence[float]] = {}
        room = _ROOM
        for k, tensor in enumerate(rest):
            if not tensor.shape[0]:
                continue
            array = np.asarray(tensor)
            if k >= len(self.counted):
                close.update(self._closely(array, self.whole[k - len(self.counted)], np.asarray(first[0])))
                continue
            room -= array.nbytes
            at = self.counted[k]
            low[at] = array if room >= 0 else low_counts(array.reshape(-1), [0], self._many[at])[0]
        return Seen(first, low, close)

    def _closely(self, whole: NDArray[Any], group: Sequence[int], halves: NDArray[Any]) -> dict[int, Sequence[float]]:
        """The numbers of `HEAD` of those in a group that are in doubt, given one behind the other."""
        chosen = [at for at in group if len(group) == 1 or _doubtful(halves[at])]
        parts = np.split(whole, np.cumsum([self._sizes[self.many[at]] or 0 for at in chosen[:-1]], dtype=np.intp))
        return {at: measured(part, self._many[at], False).head for at, part in zip(chosen, parts, strict=True)}

    def statistics(self, steps: Sequence[Seen]) -> tuple[NDArray[Any], list[Bins]]:
        """The numbers of `HEAD` in some steps, as far as they are known, [steps, 7, tensors]; and the bins."""
        heads = np.zeros([len(steps), len(HEAD), len(self._dtypes)])
        heads[:, :, self.many] = self._of_many(steps)
        found = [
            Bins(which, dtype, _sums(_column(steps, _NUMBERS + k), len(which), dtype))
            for k, (dtype, which) in enumerate(self.binned)
        ]
        for k, (dtype, which) in enumerate(self.few):
            sizes = [self._sizes[j] or 0 for j in which]
            block = _column(steps, _NUMBERS + len(self.binned) + k)
            heads[:, :, which], bins = measured_segments(block, sizes, dtype, self._histograms[which[0]])
            if bins is not None:
                found.append(Bins(which, dtype, bins))
        return heads, found

    def _of_many(self, steps: Sequence[Seen]) -> NDArray[Any]:
        """The numbers of `HEAD` of the tensors with many numbers: [steps, 7, many]."""
        heads = np.zeros([len(steps), len(HEAD), len(self.many)])
        halves, highs, lows = (_column(steps, k).astype(np.float64) for k in range(_NUMBERS))
        with np.errstate(invalid="ignore"):  # of what is looked at closely
            heads[:, 0] = np.sqrt(2 * halves)
            heads[:, 1, self.looked] = np.maximum(np.maximum(highs, -lows), 0)  # 0 of nothing
        for at in self.counted:
            heads[:, HEAD.index("zero") :, at] = _low(steps, at, self._many[at])
        for head, one in zip(heads, steps, strict=True):
            for k, close in one.close.items():
                head[:, k] = close
        return heads


def _column(steps: Sequence[Seen], k: int) -> NDArray[Any]:
    """One of the tensors of some steps: [steps, ...]."""
    return np.stack([np.asarray(one.tensors[k]) for one in steps])


def _low(steps: Sequence[Seen], at: int, dtype: Any) -> NDArray[Any]:
    """How many numbers of a tensor are zero, and how many subnormal: [steps, 2]."""
    counts = np.zeros([len(steps), 2])
    rows = {}
    for k, one in enumerate(steps):
        found = one.low.get(at)
        if found is None or found.ndim == 1:
            counts[k] = 0 if found is None else found
        else:
            rows[k] = found.reshape(-1)
    if rows:
        ends = np.cumsum([row.size for row in rows.values()])
        counts[[*rows]] = low_counts(np.concatenate([*rows.values()]), [0, *ends[:-1]], dtype)
    return counts


def _by_dtype(which: Iterable[int], dtypes: Sequence[Any]) -> list[tuple[Any, list[int]]]:
    groups: dict[Any, list[int]] = {}
    for k in which:
        groups.setdefault(dtypes[k], []).append(k)
    return list(groups.items())


def _groups(sizes: Sequence[int | None], dtypes: Sequence[Any]) -> list[list[int]]:
    """Positions of what may leave as one tensor: of one dtype, and of known sizes."""
    known = [at for at, size in enumerate(sizes) if size is not None]
    return [*(group for _, group in _by_dtype(known, dtypes)), *([at] for at, size in enumerate(sizes) if size is None)]


def _doubtful(halves: Any) -> Any:
    """Of each half of a sum of squares, whether it may be lost in part, or is not finite."""
    least, most = np.array([LEAST, MOST], tf.as_dtype(halves.dtype).as_numpy_dtype)
    return ~((halves >= least) & (halves <= most))


def _in_rows(vector: Any, value: Any) -> Any:
    """A vector in rows of some dozens of numbers, where its size allows that; else in one."""
    size = vector.shape.num_elements()
    if size is not None:
        return tf.reshape(vector, [-1, next((width for width in _WIDTHS if size % width == 0), size)])
    width = value.values.shape[-1] if isinstance(value, tf.IndexedSlices) else None
    return tf.reshape(vector, [-1, width] if width else [1, -1])


def _have_low(rows: Any) -> Any:
    """Of each row, whether a number is zero or subnormal."""
    if rows.dtype in (tf.float32, tf.float64) and takes_subnormal_for_zero():
        return tf.reduce_any(tf.equal(rows, 0), 1)
    return tf.reduce_any(tf.abs(rows) < tf.constant(FORMATS[rows.dtype].least, rows.dtype), 1)


def _those(chosen: Any, vectors: Sequence[Any]) -> list[Any]:
    """Vectors that are chosen, and nothing of the others; not copied."""
    if not vectors:
        return []
    sizes = tf.stack([tf.size(vector) for vector in vectors])
    ends = tf.split(tf.where(chosen, sizes, tf.zeros_like(sizes)), len(vectors))  # of one shape: costs half as much
    return [tf.slice(vector, [0], end) for vector, end in zip(vectors, ends, strict=True)]


def _together(tensors: Sequence[Any]) -> Any:
    """Tensors of one shape as one."""
    if not tensors:
        return tf.zeros([0])
    if len({tensor.dtype for tensor in tensors}) > 1:
        tensors = [tf.cast(tensor, tf.float64) for tensor in tensors]
    return tf.stack(tensors)


def _apart(dtype: Any) -> int:
    return _APART if FORMATS[dtype].bins <= 512 else 0


def _sums(bins: NDArray[Any], tensors: int, dtype: Any) -> NDArray[Any]:
    """Bins that were divided, put together: [steps, tensors, bins]."""
    parts = bins.reshape(len(bins), tensors, FORMATS[dtype].bins, -1)
    sums: NDArray[Any] = sum(parts[..., k] for k in range(1, parts.shape[-1])) + parts[..., 0]  # not of a short axis
    return sums
