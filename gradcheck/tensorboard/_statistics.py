"""What is known of a tensor, and a histogram of it to draw."""

from __future__ import annotations

import functools
import math
import sys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradcheck.tensorboard._packing import Format

_BINADES = 14  # below the largest magnitude that are drawn apart: so a histogram has at most 29 buckets


class Statistics(NamedTuple):
    """What is known of one tensor; a complex entry counts as two numbers. What `HEAD` says, then its histogram.

    Attributes:
        norm: The root of the sum of their squares: NaN or infinite where one of them is.
        largest: The largest magnitude; NaN where a number is.
        nan, posinf, neginf, zero, subnormal: How many are of that kind.
        buckets: [k, 3]: left edge, right edge and count, finite numbers only; None where it was not asked for.
    """

    norm: float
    largest: float
    nan: float
    posinf: float
    neginf: float
    zero: float
    subnormal: float
    buckets: NDArray[Any] | None = None


def drawn(bins: NDArray[Any], bias: int, largest: float) -> NDArray[Any]:
    """Buckets for a histogram of the finite numbers.

    A bucket is what one sign and one power of two have: between 2^e and 2^(e+1). What is smaller than the largest by
    a factor of more than 2^14 is drawn as one bucket around 0, with the zeros; on a page it would be too small to see.
    Where all numbers are subnormal, they are drawn at 0.

    Args:
        bins: How many numbers each combination of sign and exponent field has, positive ones first.
        bias: Of the exponent field.
        largest: The largest magnitude; where it is finite, no bucket reaches beyond it.

    Returns:
        [k, 3], from left to right and without gaps: left edge, right edge, count. Of nothing, one empty bucket.
    """
    fields = bins.reshape(2, -1)[:, :-1]  # the last is that of infinities and NaN
    top = _top(fields, bias, largest)
    reach = largest if math.isfinite(largest) else sys.float_info.max
    only = top > 1 and reach == math.ldexp(1.0, top - bias)  # the one number up there: the edge of the bucket below
    top -= only
    low = max(top - _BINADES + 1, 1)
    table = _empty(low - bias, top - bias).copy()
    count = len(table) // 2
    table[count + 1 :, 2], table[:count, 2] = fields[0, low : top + 1], fields[1, low : top + 1][::-1]
    table[count, 2] = fields[:, :low].sum()
    if only:
        table[-1, 2] += fields[0, top + 1]
        table[0, 2] += fields[1, top + 1]
    table[0, 0], table[-1, 1] = max(table[0, 0], -reach), min(table[-1, 1], reach)
    middle = table[count]
    if not fields[1, 1:].any():
        middle[0] = 0.0
    if not fields[0, 1:].any():
        middle[1] = 0.0
    inside = table[:, 2].nonzero()[0]
    return table[inside[0] : inside[-1] + 1] if inside.size else np.zeros([1, 3])


def magnitude(bits: int, form: Format) -> float:
    """The number with these bits, without its sign."""
    if bits > form.infinity:
        return math.nan
    if bits == form.infinity:
        return math.inf
    field, rest = divmod(bits, form.smallest)
    significand = rest + form.smallest if field else rest
    return math.ldexp(significand, max(field, 1) - form.bias - form.mantissa)


def _top(fields: NDArray[Any], bias: int, largest: float) -> int:
    """The field of the largest finite magnitude; 0 where all are subnormal."""
    if math.isfinite(largest):
        return max(math.frexp(largest)[1] - 1 + bias, 0) if largest else 0
    filled = np.flatnonzero(fields.any(axis=0))
    return int(filled[-1]) if filled.size else 0


@functools.cache
def _empty(low: int, top: int) -> NDArray[Any]:
    """Buckets without numbers in them: of both signs, from 2^low to 2^(top+1), and one between."""
    with np.errstate(over="ignore"):  # the end of the last of float64
        edges = np.ldexp(1.0, np.arange(low, top + 2))
    edges = np.concatenate([-edges[::-1], edges])
    return np.stack([edges[:-1], edges[1:], np.zeros(len(edges) - 1)], axis=1)
