"""Statistics of tensors, computed in the graph and packed into one vector.

What is counted is counted by the bits of the floating-point format (IEEE 754; bfloat16 is float32 cut off), which
neither flushing subnormal numbers to zero nor what XLA makes of NaN can change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from gradcheck._graph.finite import amounts, is_finite

HEAD = ("size", "norm", "largest", "zero", "subnormal", "nan", "posinf", "neginf")  # per tensor, before its bins


@dataclass(frozen=True, slots=True)
class Format:
    """A binary floating-point format.

    Attributes:
        bits: The unsigned integer dtype that its bits are read as.
        ordered: A signed one that holds them without the sign bit.
        exponent, mantissa: How many bits each has.
    """

    bits: Any
    ordered: Any
    exponent: int
    mantissa: int

    @property
    def bias(self) -> int:
        """What is taken from the exponent's field to get the exponent."""
        return int(2 ** (self.exponent - 1) - 1)

    @property
    def bins(self) -> int:
        """How many combinations of sign and exponent there are: those of positive numbers first."""
        return int(2 ** (self.exponent + 1))

    @property
    def infinity(self) -> int:
        """The bits of +Inf; those of a NaN are more, without its sign."""
        return int((2**self.exponent - 1) << self.mantissa)

    @property
    def smallest(self) -> int:
        """The bits of the smallest number that is not subnormal."""
        return int(1 << self.mantissa)


FORMATS = {
    tf.float16: Format(tf.uint16, tf.int16, 5, 10),
    tf.bfloat16: Format(tf.uint16, tf.int16, 8, 7),
    tf.float32: Format(tf.uint32, tf.int32, 8, 23),
    tf.float64: Format(tf.uint64, tf.int64, 11, 52),
}


def flat(value: Any) -> Any:
    """The real numbers of a gradient as a vector.

    Of a complex tensor the real and the imaginary parts. Of `tf.IndexedSlices` the rows that occur, each once: rows of
    one index are added up, as an optimizer does.
    """
    if isinstance(value, tf.IndexedSlices):
        found, at = tf.unique(value.indices)
        value = tf.math.unsorted_segment_sum(value.values, at, tf.size(found))
    vector = tf.reshape(value, [-1])
    return tf.concat([tf.math.real(vector), tf.math.imag(vector)], 0) if vector.dtype.is_complex else vector


def pack(vectors: Sequence[Any], histograms: bool) -> Any:
    """The statistics of vectors of real numbers: float64, for each what `HEAD` says, then the bins of each.

    The largest magnitude stands as its bits where they are exact in float64, which they are but in float64 itself.
    """
    if not vectors:
        return tf.zeros([0], tf.float64)
    sizes = [tf.size(v) for v in vectors]
    magnitudes = [_magnitude(v) for v in vectors]
    largest = [tf.maximum(tf.reduce_max(m), 0) for m in magnitudes]  # 0 where there is no entry
    zeros = [_count(tf.equal(m, 0)) for m in magnitudes]
    bins: list[Any] = []
    if histograms:
        bins = [_bins(v) for v in vectors]
        small = [b[0] + b[FORMATS[v.dtype].bins // 2] for b, v in zip(bins, vectors, strict=True)]
    else:
        small = [_count(m < FORMATS[v.dtype].smallest) for m, v in zip(magnitudes, vectors, strict=True)]
    subnormals = [low - zero for low, zero in zip(small, zeros, strict=True)]
    norms = tf.sqrt(amounts(vectors))
    shown = [_exactly(bits, v.dtype) for bits, v in zip(largest, vectors, strict=True)]
    special = [bits >= FORMATS[v.dtype].infinity for bits, v in zip(largest, vectors, strict=True)]
    imprecise = ((norms < _SMALL) | (norms > _LARGE)) & tf.stack([bits > 0 for bits in largest])
    nothing = [tf.zeros([len(vectors)], tf.float64)] * 3
    norms, *counts = tf.cond(
        tf.reduce_any(tf.stack(special) | imprecise | tf.math.is_nan(norms)),
        lambda: _closely(vectors, magnitudes),
        lambda: [norms, *nothing],
    )
    head = [_numbers(sizes), norms, tf.stack(shown), _numbers(zeros), _numbers(subnormals), *counts]
    return tf.concat([tf.reshape(tf.stack(head, 1), [-1]), *(tf.cast(b, tf.float64) for b in bins)], 0)


_SMALL, _LARGE = 1e-15, 1e15  # outside, the squares of single precision may be lost


def _magnitude(vector: Any) -> Any:
    """The bits of each number without its sign, as int32 or int64: ordered as the magnitudes are."""
    form = FORMATS[vector.dtype]
    bits = tf.bitcast(vector, form.ordered)
    rest = tf.bitwise.bitwise_and(bits, tf.constant((1 << (form.exponent + form.mantissa)) - 1, bits.dtype))
    return tf.cast(rest, tf.int32) if form.ordered == tf.int16 else rest


def _bins(vector: Any) -> Any:
    """How many numbers each combination of sign and exponent has, int32."""
    form = FORMATS[vector.dtype]
    bits = tf.bitcast(vector, form.bits)
    keys = tf.bitwise.right_shift(bits, tf.constant(form.mantissa, bits.dtype))
    keys = tf.bitcast(keys, tf.int32) if form.bits == tf.uint32 else tf.cast(keys, tf.int32)
    return tf.raw_ops.DenseBincount(input=keys, size=form.bins, weights=tf.zeros([0], tf.int32))


def _closely(vectors: Sequence[Any], magnitudes: Sequence[Any]) -> list[Any]:
    """Norms that neither overflow nor underflow, and the numbers of NaN, +Inf and -Inf."""
    norms, counts = [], []
    for vector, bits in zip(vectors, magnitudes, strict=True):
        form = FORMATS[vector.dtype]
        wide = tf.cast(vector, tf.float64)
        if vector.dtype != tf.float64:  # a cast may take subnormal numbers for zero
            tiny = tf.cast(bits, tf.float64) * 2.0 ** (1 - form.bias - form.mantissa)
            wide = tf.where(bits < form.smallest, tiny, wide)
        scale = tf.reduce_max(tf.where(is_finite(wide), tf.abs(wide), tf.zeros_like(wide)))
        scale = tf.where(scale > 0, scale, tf.ones_like(scale))
        norms.append(scale * tf.sqrt(tf.reduce_sum(tf.square(wide / scale))))
        infinite = tf.equal(bits, form.infinity)
        counts.append([_count(bits > form.infinity), _count(infinite & (wide > 0)), _count(infinite & (wide < 0))])
    return [tf.stack(norms), *(_numbers(column) for column in zip(*counts, strict=True))]


def _exactly(bits: Any, dtype: Any) -> Any:
    return tf.bitcast(bits, tf.float64) if dtype == tf.float64 else tf.cast(bits, tf.float64)


def _count(condition: Any) -> Any:
    return tf.reduce_sum(tf.cast(condition, tf.int32))


def _numbers(scalars: Sequence[Any]) -> Any:
    return tf.cast(tf.stack(scalars), tf.float64)
