"""Floating-point formats, and gradients as vectors of the real numbers that they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

HEAD = ("norm", "largest", "nan", "posinf", "neginf", "zero", "subnormal")  # of each tensor, beside its bins
LEAST, MOST = 5e-31, 5e29  # half a sum of squares; outside, some of single precision may be lost


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

    @property
    def least(self) -> float:
        """The smallest number that is not subnormal."""
        return float(2.0 ** (1 - self.bias))


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


def bins_of(vector: Any, apart: int = 0) -> Any:
    """How many numbers of a vector each combination of sign and exponent has, int32.

    Args:
        vector: Of one of the dtypes of `FORMATS`.
        apart: By how many bits of the mantissa each bin is divided into bins.
    """
    form = FORMATS[vector.dtype]
    bits = tf.bitcast(vector, form.bits)
    keys = tf.bitwise.right_shift(bits, tf.constant(form.mantissa - apart, bits.dtype))
    keys = tf.bitcast(keys, tf.int32) if form.bits == tf.uint32 else tf.cast(keys, tf.int32)
    return tf.raw_ops.DenseBincount(input=keys, size=form.bins << apart, weights=tf.zeros([0], tf.int32))
