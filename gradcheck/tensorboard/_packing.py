"""Statistics of tensors, computed in a graph that XLA compiles and packed into one vector.

XLA fuses what is decided in the graph, and knows no tensors whose shape depends on values. What is counted is counted
by the bits of the floating-point format (IEEE 754; bfloat16 is float32 cut off), which neither flushing subnormal
numbers to zero nor what XLA makes of NaN can change.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from gradcheck._graph.finite import amounts, half_amount, is_finite
from gradcheck.tensorboard._formats import FORMATS, LEAST, MOST, bins_of, flat


def pack(vectors: Sequence[Any], histograms: bool, read: Callable[[], Sequence[Any]] = list) -> tuple[Any, Any, Any]:
    """The statistics of vectors of real numbers, in three parts, all float64.

    What costs little, and decides whether that is enough, is computed first.

    Args:
        vectors: Of the dtypes of `FORMATS`.
        histograms: Whether bins are counted; else there are none.
        read: Gives other tensors.

    Returns:
        [5 * vectors + others]: all norms, then all of what is next in `HEAD` and so on, then what `norms` gives of the
        others. [2 * vectors]: what is last in `HEAD`. The bins of all vectors in a row.
    """
    if not vectors:
        return norms(read), tf.zeros([0], tf.float64), tf.zeros([0], tf.float64)
    count = len(vectors)
    others = read()
    sizes = vectors if histograms else [tf.abs(v) for v in vectors]
    halves = [half_amount(v) for v in (*vectors, *others)]
    extremes = [*(tf.reduce_max(v) for v in sizes), *(tf.reduce_min(v) for v in sizes)]
    halves, highs, lows = tf.split(_numbers([*halves, *extremes]), [len(halves), count, count])
    if histograms:
        bins = tf.concat([bins_of(v) for v in vectors], 0)
        few = tf.reduce_sum(tf.gather(bins, _lowest_bins(vectors)), 1)
        highs = tf.maximum(highs, -lows)
        have_low = few > 0
    else:
        bins, few = tf.zeros([0], tf.int32), None
        have_low = ~(lows >= [FORMATS[v.dtype].least for v in vectors])  # also where one is NaN
    roots, largest = tf.sqrt(2 * halves), tf.maximum(highs, 0)  # 0 of nothing
    none = tf.zeros([2, count], tf.float64)
    low = tf.cond(tf.reduce_any(have_low), lambda: _low(sizes, have_low, few), lambda: none)
    # Of zeros alone, a norm of 0 is no doubt.
    some = tf.concat([low[0] < _lengths(vectors), tf.ones([len(others)], tf.bool)], 0)
    doubtful = ~_between(halves, LEAST, MOST) & some

    def look() -> Any:
        found = _closely(vectors, doubtful[:count], [roots[:count], largest])
        return tf.concat([tf.reshape(found, [-1]), _sure(read, roots[count:], doubtful[count:])], 0)

    def enough() -> Any:
        return tf.concat([roots[:count], largest, tf.zeros([3 * count], tf.float64), roots[count:]], 0)

    found = tf.cond(tf.reduce_any(doubtful), look, enough)
    return found, tf.reshape(low, [-1]), tf.cast(bins, tf.float64)


def norms(read: Callable[[], Sequence[Any]]) -> Any:
    """The roots of the sums of squares of tensors, float64 of shape [tensors].

    Where one is in doubt, they are read again, and not held until that is known: of a variable that somebody holds, an
    update makes a copy.
    """
    tensors = read()
    if not tensors:
        return tf.zeros([0], tf.float64)
    squares = amounts(tensors)
    sure = _between(squares, 2 * LEAST, 2 * MOST)
    roots = tf.sqrt(squares)
    return tf.cond(tf.reduce_all(sure), lambda: roots, lambda: _sure(read, roots, ~sure))


def _sure(read: Callable[[], Sequence[Any]], found: Any, doubtful: Any) -> Any:
    """Norms of what is read, as found where that is not doubtful."""
    vectors = [flat(v) for v in read()]
    return _closely(vectors, doubtful, [found])[0] if vectors else found


def _low(sizes: Sequence[Any], have_low: Any, few: Any) -> Any:
    """How many numbers are zero, and how many subnormal, of vectors that have some: float64, [2, vectors].

    Args:
        sizes: Vectors; without signs, if `few` is None.
        have_low: Bool, [vectors].
        few: How many are zero or subnormal, if that is known.
    """
    if few is not None:
        found = _numbers([tf.reduce_sum(tf.minimum(_bits(v), 1)) for v in sizes])
        zeros = tf.where(have_low, _lengths(sizes) - found, tf.zeros_like(found))
        return tf.stack([zeros, tf.cast(few, tf.float64) - zeros])
    forms = [FORMATS[v.dtype] for v in sizes]
    bits = [tf.bitcast(v, form.ordered) for v, form in zip(sizes, forms, strict=True)]
    zeros = [_count(tf.equal(b, 0)) for b in bits]
    found = _numbers([*zeros, *(_count(b < form.smallest) for b, form in zip(bits, forms, strict=True))])
    zeros, low = tf.split(found, 2)
    return tf.stack([zeros, low - zeros])


def _lengths(vectors: Sequence[Any]) -> Any:
    known = [v.shape.num_elements() for v in vectors]
    return _numbers([tf.size(v) if n is None else tf.constant(n) for v, n in zip(vectors, known, strict=True)])


def _between(numbers: Any, least: Any, most: Any) -> Any:
    return (numbers >= tf.constant(least, tf.float64)) & (numbers <= tf.constant(most, tf.float64))


def _bits(vector: Any) -> Any:
    """The bits of each number without its sign, as int32 or int64: ordered as the magnitudes are."""
    form = FORMATS[vector.dtype]
    bits = tf.bitcast(vector, form.ordered)
    rest = tf.bitwise.bitwise_and(bits, tf.constant(form.unsigned, bits.dtype))
    return tf.cast(rest, tf.int32) if form.ordered == tf.int16 else rest


def _closely(vectors: Sequence[Any], doubtful: Any, known: Sequence[Any]) -> Any:
    """Norms that neither overflow nor underflow, the largest magnitudes, and the numbers of NaN, +Inf and -Inf.

    As what is known already, where that is not in doubt: float64 of shape [5, vectors].
    """
    found = tf.stack([_close_look(v) for v in vectors], 1)
    rest = tf.zeros([5 - len(known), len(vectors)], tf.float64)
    return tf.where(doubtful, found, tf.concat([known, rest], 0))


def _close_look(vector: Any) -> Any:
    form, bits = FORMATS[vector.dtype], _bits(vector)
    wide = _wide(vector, bits)
    scale = _scale(wide)
    norm = scale * tf.sqrt(tf.reduce_sum(tf.square(wide / scale)))
    top = tf.maximum(tf.reduce_max(bits), 0)  # 0 where there is no number
    largest = _wide(tf.bitcast(tf.cast(top, form.ordered), vector.dtype), top)
    infinite = tf.equal(bits, form.infinity)
    counts = [_count(bits > form.infinity), _count(infinite & (wide > 0)), _count(infinite & (wide < 0))]
    return tf.stack([norm, largest, *(tf.cast(c, tf.float64) for c in counts)])


def _scale(wide: Any) -> Any:
    """The largest finite magnitude, by which squares neither overflow nor are lost; 1 where all are zero."""
    largest = tf.reduce_max(tf.where(is_finite(wide), tf.abs(wide), tf.zeros_like(wide)))
    return tf.where(largest > 0, largest, tf.ones_like(largest))


def _wide(number: Any, bits: Any) -> Any:
    """Numbers in float64; those subnormal in a shorter format from their bits: a cast may take them for zero."""
    if number.dtype == tf.float64:
        return number
    form = FORMATS[number.dtype]
    tiny = tf.cast(bits, tf.float64) * 2.0 ** (1 - form.bias - form.mantissa)
    return tf.where(bits < form.smallest, tiny, tf.cast(number, tf.float64))


def _lowest_bins(vectors: Sequence[Any]) -> Any:
    """Where among the bins of all vectors those of zeros and subnormal numbers are, int: [vectors, 2]."""
    widths = [FORMATS[v.dtype].bins for v in vectors]
    return [[end - width, end - width // 2] for width, end in zip(widths, itertools.accumulate(widths), strict=True)]


def _count(condition: Any) -> Any:
    return tf.reduce_sum(tf.cast(condition, tf.int32))


def _numbers(scalars: Sequence[Any], dtype: Any = tf.float64) -> Any:
    """Scalars as one vector, by one cast where all are of one dtype."""
    if len({scalar.dtype for scalar in scalars}) == 1:
        return tf.cast(tf.stack(scalars), dtype)
    return tf.stack([tf.cast(scalar, dtype) for scalar in scalars])
