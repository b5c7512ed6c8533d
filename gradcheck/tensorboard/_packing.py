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
    def unsigned(self) -> int:
        """All bits but the sign."""
        return int((1 << (self.exponent + self.mantissa)) - 1)

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
    bins = [_bins(v) for v in vectors] if histograms else []
    looks = (
        [_by_bins(v, b) for v, b in zip(vectors, bins, strict=True)] if histograms else [_by_bits(v) for v in vectors]
    )
    largest, small, wild = zip(*looks, strict=True)
    largest, low, wild = tf.stack(largest), _numbers(small), tf.stack(wild)
    known = [v.shape.num_elements() for v in vectors]
    sizes = _numbers([tf.size(v) if n is None else n for v, n in zip(vectors, known, strict=True)])
    none = tf.zeros([len(vectors)], tf.float64)
    zeros = tf.cond(
        tf.reduce_any(low > 0), lambda: _numbers([_count(tf.equal(_bits(v), 0)) for v in vectors]), lambda: none
    )
    norms = tf.sqrt(amounts(vectors))
    doubtful = ((norms < _SMALL) | (norms > _LARGE) | tf.math.is_nan(norms)) & (zeros < sizes)
    norms, largest, *counts = tf.cond(
        tf.reduce_any(wild | doubtful), lambda: _closely(vectors), lambda: [norms, largest, none, none, none]
    )
    head = [sizes, norms, largest, zeros, low - zeros, *counts]
    return tf.concat([tf.reshape(tf.stack(head, 1), [-1]), *(tf.cast(b, tf.float64) for b in bins)], 0)


def _by_bins(vector: Any, bins: Any) -> tuple[Any, Any, Any]:
    """The largest magnitude, how many numbers are zero or subnormal, and whether one is not finite.

    The first holds where neither all are subnormal nor one is not finite.
    """
    half = FORMATS[vector.dtype].bins // 2
    largest = tf.maximum(tf.reduce_max(vector), -tf.reduce_min(vector))  # without a copy of the vector
    if vector.shape.num_elements() in (None, 0):
        largest = tf.where(tf.size(vector) > 0, largest, tf.zeros_like(largest))
    return _shown(_bits(largest), vector.dtype), bins[0] + bins[half], bins[half - 1] + bins[-1] > 0


def _by_bits(vector: Any) -> tuple[Any, Any, Any]:
    """The same without bins."""
    form, bits = FORMATS[vector.dtype], _bits(vector)
    largest = _largest(bits)
    return _shown(largest, vector.dtype), _count(bits < form.smallest), largest >= form.infinity


_SMALL, _LARGE = 1e-15, 1e15  # outside, the squares of single precision may be lost


def _bits(vector: Any) -> Any:
    """The bits of each number without its sign, as int32 or int64: ordered as the magnitudes are."""
    form = FORMATS[vector.dtype]
    bits = tf.bitcast(vector, form.ordered)
    rest = tf.bitwise.bitwise_and(bits, tf.constant(form.unsigned, bits.dtype))
    return tf.cast(rest, tf.int32) if form.ordered == tf.int16 else rest


def _bins(vector: Any) -> Any:
    """How many numbers each combination of sign and exponent has, int32."""
    form = FORMATS[vector.dtype]
    bits = tf.bitcast(vector, form.bits)
    keys = tf.bitwise.right_shift(bits, tf.constant(form.mantissa, bits.dtype))
    keys = tf.bitcast(keys, tf.int32) if form.bits == tf.uint32 else tf.cast(keys, tf.int32)
    return tf.raw_ops.DenseBincount(input=keys, size=form.bins, weights=tf.zeros([0], tf.int32))


def _closely(vectors: Sequence[Any]) -> list[Any]:
    """Norms that neither overflow nor underflow, the largest magnitudes, and the numbers of NaN, +Inf and -Inf."""
    norms, largest, counts = [], [], []
    for vector in vectors:
        form, bits = FORMATS[vector.dtype], _bits(vector)
        wide = tf.cast(vector, tf.float64)
        if vector.dtype != tf.float64:  # a cast may take subnormal numbers for zero
            tiny = tf.cast(bits, tf.float64) * 2.0 ** (1 - form.bias - form.mantissa)
            wide = tf.where(bits < form.smallest, tiny, wide)
        scale = tf.reduce_max(tf.where(is_finite(wide), tf.abs(wide), tf.zeros_like(wide)))
        scale = tf.where(scale > 0, scale, tf.ones_like(scale))
        norms.append(scale * tf.sqrt(tf.reduce_sum(tf.square(wide / scale))))
        largest.append(_shown(_largest(bits), vector.dtype))
        infinite = tf.equal(bits, form.infinity)
        counts.append([_count(bits > form.infinity), _count(infinite & (wide > 0)), _count(infinite & (wide < 0))])
    return [tf.stack(norms), tf.stack(largest), *(_numbers(column) for column in zip(*counts, strict=True))]


def _largest(bits: Any) -> Any:
    return tf.maximum(tf.reduce_max(bits), 0)  # 0 where there is no number


def _shown(bits: Any, dtype: Any) -> Any:
    return tf.bitcast(bits, tf.float64) if dtype == tf.float64 else tf.cast(bits, tf.float64)


def _count(condition: Any) -> Any:
    return tf.reduce_sum(tf.cast(condition, tf.int32))


def _numbers(scalars: Sequence[Any]) -> Any:
    return tf.cast(tf.stack(scalars), tf.float64)
