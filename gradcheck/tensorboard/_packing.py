"""Statistics of tensors, computed in the graph and packed into one vector.

What is counted is counted by the bits of the floating-point format (IEEE 754; bfloat16 is float32 cut off), which
neither flushing subnormal numbers to zero nor what XLA makes of NaN can change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from gradcheck._graph.finite import amounts, is_finite
from gradcheck.tensorboard._transport import compiled_by_xla, without_warning

HEAD = ("norm", "largest", "nan", "posinf", "neginf", "zero", "subnormal")  # of each tensor, beside its bins


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


def pack(vectors: Sequence[Any], histograms: bool) -> tuple[Any, Any]:
    """The statistics of vectors of real numbers, float64: [vectors, 7] as `HEAD` says, and the bins of all in a row.

    Args:
        vectors: Of the dtypes of `FORMATS`.
        histograms: Whether bins are counted; else there are none.
    """
    if not vectors:
        return tf.zeros([0, len(HEAD)], tf.float64), tf.zeros([0], tf.float64)
    bins = [_bins(v) for v in vectors] if histograms else []
    looks = [_by_bins(v, b) for v, b in zip(vectors, bins, strict=True)] if bins else [_by_size(v) for v in vectors]
    largest, low, zeros = (_numbers(column) for column in zip(*looks, strict=True))
    known = [v.shape.num_elements() for v in vectors]
    sizes = _numbers([tf.size(v) if n is None else n for v, n in zip(vectors, known, strict=True)])
    roots = tf.sqrt(amounts(vectors))
    doubtful = _doubtful(roots) & (zeros < sizes)
    none = tf.zeros([len(vectors)], tf.float64)
    middle = tf.cond(
        tf.reduce_any(doubtful),
        lambda: _closely(vectors, doubtful, [roots, largest]),
        lambda: tf.stack([roots, largest, none, none, none]),
    )
    heads = tf.transpose(tf.concat([middle, [zeros, low - zeros]], 0))
    return heads, tf.cast(tf.concat(bins, 0), tf.float64) if bins else none[:0]


def norms(read: Callable[[], Sequence[Any]]) -> Any:
    """The roots of the sums of squares of vectors, float64 of shape [vectors].

    Where one is in doubt, they are read again, and not held until that is known: of a variable that somebody holds, an
    update makes a copy.
    """
    vectors = read()
    if not vectors:
        return tf.zeros([0], tf.float64)
    found = tf.sqrt(amounts(vectors))
    doubtful = _doubtful(found)
    return tf.cond(tf.reduce_any(doubtful), lambda: _closely(read(), doubtful, [found])[0], lambda: found)


def together(sizes: Any, groups: Sequence[Sequence[int]]) -> Any:
    """The norms of vectors that are put together, from those of each: float64 of shape [groups]."""
    if not groups:
        return tf.zeros([0], tf.float64)
    members = [k for group in groups for k in group]
    of = [at for at, group in enumerate(groups) for _ in group]
    scale = _scale(sizes)
    squares = tf.square(tf.gather(sizes / scale, members))
    return scale * tf.sqrt(tf.math.unsorted_segment_sum(squares, tf.constant(of), len(groups)))


def _by_bins(vector: Any, bins: Any) -> tuple[Any, Any, Any]:
    """The largest magnitude, and how many numbers are zero or subnormal, and zero.

    The first holds where neither all are subnormal nor one is not finite.
    """
    low = bins[0] + bins[FORMATS[vector.dtype].bins // 2]
    largest = tf.maximum(tf.reduce_max(vector), -tf.reduce_min(vector))  # without a copy of the vector
    return _of_some(largest, vector), low, _count(tf.equal(_bits(_if(low > 0, vector)), 0))


def _by_size(vector: Any) -> tuple[Any, Any, Any]:
    """The same without bins."""
    form = FORMATS[vector.dtype]
    sizes = tf.abs(vector)
    smallest = tf.bitcast(tf.constant(form.smallest, form.ordered), vector.dtype)
    bits = tf.bitcast(_if(~(tf.reduce_min(sizes) >= smallest), sizes), form.ordered)  # also where one is NaN
    return _of_some(tf.reduce_max(sizes), vector), _count(bits < form.smallest), _count(tf.equal(bits, 0))


def _if(condition: Any, vector: Any) -> Any:
    """A vector, or nothing of it, not copied; for XLA, which knows fixed shapes alone, always the vector."""
    return vector if compiled_by_xla() else vector[: tf.where(condition, tf.size(vector), 0)]


def _of_some(largest: Any, vector: Any) -> Any:
    """The largest of a vector in float64; 0 where that is empty."""
    if vector.shape.num_elements() in (None, 0):
        largest = tf.where(tf.size(vector) > 0, largest, tf.zeros_like(largest))
    return tf.cast(largest, tf.float64)


_SMALL, _LARGE = 1e-15, 1e15  # outside, the squares of single precision may be lost


def _doubtful(found: Any) -> Any:
    return ~((found >= _SMALL) & (found <= _LARGE))


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


def _closely(vectors: Sequence[Any], doubtful: Any, known: Sequence[Any]) -> Any:
    """Norms that neither overflow nor underflow, the largest magnitudes, and the numbers of NaN, +Inf and -Inf.

    As what is known already, where that is not in doubt: float64 of shape [5, vectors].
    """

    def look(vectors: Sequence[Any], doubtful: Any, known: Sequence[Any]) -> Any:
        found = tf.stack([_close_look(_if(doubtful[k], v)) for k, v in enumerate(vectors)], 1)
        rest = tf.zeros([5 - len(known), len(vectors)], tf.float64)
        return tf.where(doubtful, found, tf.concat([known, rest], 0))

    # As one op, which costs nothing where it is not run.
    called = tf.function(look, autograph=False, experimental_attributes={"_noinline": True})
    return without_warning(called)(list(vectors), doubtful, list(known))


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


def _count(condition: Any) -> Any:
    return tf.reduce_sum(tf.cast(condition, tf.int32))


def _numbers(scalars: Sequence[Any]) -> Any:
    """Scalars as one float64 vector, by one cast where all are of one dtype."""
    return tf.cast(tf.stack(scalars), tf.float64)
