"""What a packed vector of statistics says about each tensor, and a histogram to draw of it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcheck.tensorboard._packing import FORMATS, HEAD

_BINADES = 14  # below the largest magnitude that are drawn apart: so a histogram has at most 29 buckets


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What is known of one tensor; a complex entry counts as two numbers.

    Attributes:
        size: How many numbers it has.
        norm: The root of the sum of their squares: NaN or infinite where one of them is.
        largest: The largest magnitude; NaN where a number is.
        zero, subnormal, nan, posinf, neginf: How many are of that kind.
        buckets: [k, 3]: left edge, right edge and count, finite numbers only; None where it was not asked for.
    """

    size: int
    norm: float
    largest: float
    zero: int
    subnormal: int
    nan: int
    posinf: int
    neginf: int
    buckets: NDArray[Any] | None = None


def unpack(row: NDArray[Any], dtypes: Sequence[Any], histograms: bool) -> Iterator[Statistics]:
    """The statistics of each tensor, from what `pack` made of tensors of these dtypes (the parts', if complex)."""
    heads = row[: len(dtypes) * len(HEAD)].reshape(-1, len(HEAD)).tolist()
    start = len(dtypes) * len(HEAD)
    for dtype, (size, norm, bits, *counts) in zip(dtypes, heads, strict=True):
        largest = _magnitude(bits, dtype)
        buckets = None
        if histograms:
            end = start + FORMATS[dtype].bins
            buckets = drawn(row[start:end], FORMATS[dtype].bias, largest)
            start = end
        zero, subnormal, nan, posinf, neginf = map(int, counts)
        yield Statistics(
            size=int(size), norm=norm, largest=largest, zero=zero, subnormal=subnormal, nan=nan, posinf=posinf,
            neginf=neginf, buckets=buckets,
        )  # fmt: skip


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
    positive, negative = bins.reshape(2, -1)[:, :-1].copy()  # the last field is that of infinities and NaN
    filled = np.flatnonzero(positive + negative)
    top = int(filled[-1]) if filled.size else 0
    reach = largest if math.isfinite(largest) else sys.float_info.max
    if top > 1 and reach == math.ldexp(1.0, top - bias):  # the only number up there: the edge of the bucket below
        for sign in (positive, negative):
            sign[top - 1] += sign[top]
        top -= 1
    low = max(top - _BINADES + 1, 1)
    with np.errstate(over="ignore"):  # the upper edge of the last power of two of float64
        edges = np.minimum(np.ldexp(1.0, np.arange(low, top + 2) - bias), reach)
    up, down = positive[low : top + 1], negative[low : top + 1]
    count = len(up)
    middle = [
        -edges[0] if negative[1:].any() else 0.0,
        edges[0] if positive[1:].any() else 0.0,
        (positive[:low] + negative[:low]).sum(),
    ]
    table = np.empty([2 * count + 1, 3])
    below, above = table[:count][::-1], table[count + 1 :]  # both from the middle outwards
    below[:, 0], below[:, 1], below[:, 2] = -edges[1:], -edges[:-1], down
    table[count] = middle
    above[:, 0], above[:, 1], above[:, 2] = edges[:-1], edges[1:], up
    inside = np.flatnonzero(table[:, 2])
    if not inside.size:
        return np.zeros([1, 3])
    return table[inside[0] : inside[-1] + 1]


def _magnitude(bits: float, dtype: Any) -> float:
    """The number with these bits; float64 stands for itself."""
    form = FORMATS[dtype]
    if form.mantissa == 52:
        return bits
    whole = int(bits)
    if whole > form.infinity:
        return math.nan
    if whole == form.infinity:
        return math.inf
    field, rest = divmod(whole, form.smallest)
    significand = rest + form.smallest if field else rest
    return math.ldexp(significand, max(field, 1) - form.bias - form.mantissa)
