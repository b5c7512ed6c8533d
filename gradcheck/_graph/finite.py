"""Whether tensors are finite: one cheap number for each, and an exact count where that is not enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

COUNTED = ("NaN", "+Inf", "-Inf", "new")  # the columns of a census
_NARROW = (tf.float16, tf.bfloat16)


def amounts(tensors: Sequence[Any]) -> Any:
    """The sum of the squares of each tensor's entries, float64 of shape [tensors].

    It is not finite where an entry is not, and also where a finite sum overflows: 1e20 squared is Inf in float32.
    Tensors are floating or complex.
    """
    return _stacked([half_amount(t) for t in tensors]) * 2


def extents(tensors: Sequence[Any]) -> Any:
    """The smallest and the largest entry of each tensor (of magnitudes, if complex), float64 of shape [tensors, 2]."""
    real = [tf.abs(t) if t.dtype.is_complex else t for t in tensors]
    return tf.reshape(_stacked([e for t in real for e in (tf.reduce_min(t), tf.reduce_max(t))]), [-1, 2])


def _stacked(scalars: Sequence[Any]) -> Any:
    """Scalars as one float64 vector, by one cast where all are of one dtype."""
    if len({s.dtype for s in scalars}) == 1:
        return tf.cast(tf.stack(scalars), tf.float64)
    return tf.stack([tf.cast(s, tf.float64) for s in scalars]) if scalars else tf.zeros([0], tf.float64)


def half_amount(tensor: Any) -> Any:
    """Half the sum of the squares of a tensor's entries, a scalar of its real dtype, float32 at least."""
    if tensor.dtype.is_complex:
        return half_amount(tf.math.real(tensor)) + half_amount(tf.math.imag(tensor))
    if tensor.dtype in _NARROW:
        tensor = tf.cast(tensor, tf.float32)
    return tf.nn.l2_loss(tensor)  # fused, where a sum of squares writes the squares down


def flags(tensors: Sequence[Any]) -> Any:
    """For each tensor whether all its entries are finite, bool of shape [tensors]: what XLA keeps as it is."""
    return tf.stack([tf.reduce_all(is_finite(t)) for t in tensors]) if tensors else tf.ones([0], tf.bool)


def is_finite(tensor: Any) -> Any:
    """For each entry whether it is finite; both parts of it, where it is complex."""
    if tensor.dtype.is_complex:
        return tf.math.is_finite(tf.math.real(tensor)) & tf.math.is_finite(tf.math.imag(tensor))
    return tf.math.is_finite(tensor)


def census(tensor: Any, old: Any = None) -> Any:
    """The numbers of NaN, of +Inf, of -Inf and of new non-finite entries; int64 of shape [4].

    Args:
        tensor: Floating or complex. An entry with a NaN part is NaN; of two infinite parts the real one counts.
        old: A tensor of the same shape: what was not finite in it is not new. None where everything is new.
    """
    parts = [tf.math.real(tensor), tf.math.imag(tensor)] if tensor.dtype.is_complex else [tensor]
    nan = tf.math.is_nan(parts[0]) | tf.math.is_nan(parts[-1])
    decisive = tf.where(tf.math.is_inf(parts[0]), parts[0], parts[-1])
    inf = ~nan & tf.math.is_inf(decisive)
    new = nan | inf
    if old is not None:
        new &= is_finite(old)
    return tf.stack([tf.math.count_nonzero(c) for c in (nan, inf & (decisive > 0), inf & (decisive < 0), new)])
