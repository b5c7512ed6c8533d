"""What is known of a tensor, and a histogram of it to draw."""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradcheck.tensorboard._formats import Format

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

    @property
    def head(self) -> tuple[float, ...]:
        """What `HEAD` says."""
        return self.norm, self.largest, self.nan, self.posinf, self.neginf, self.zero, self.subnormal


class Buckets(NamedTuple):
    """Histograms of some tensors, one beside the other.

    Attributes:
        tables: [tensors, 29, 3]: left edge, right edge and count of each bucket; zeros where there is none.
        first, behind: Where the buckets of each tensor begin, and where they have ended: there is at least one.
    """

    tables: NDArray[Any]
    first: NDArray[Any]
    behind: NDArray[Any]

    def of(self, k: int) -> NDArray[Any]:
        """The buckets of one tensor, [buckets, 3]."""
        found: NDArray[Any] = self.tables[k, self.first[k] : self.behind[k]]
        return found


def drawn(bins: NDArray[Any], bias: int, largest: NDArray[Any]) -> Buckets:
    """Buckets for histograms of the finite numbers of some tensors.

    A bucket is what one sign and one power of two have: between 2^e and 2^(e+1). What is smaller than the largest by
    a factor of more than 2^14 is drawn as one bucket around 0, with the zeros; on a page it would be too small to see.
    Where all numbers are subnormal, they are drawn at 0. Buckets go from left to right and without gaps; of nothing,
    there is an empty one.

    Args:
        bins: [tensors, bins]: how many numbers each combination of sign and exponent field has, positive ones first.
        bias: Of the exponent field.
        largest: [tensors]: the largest magnitude; where it is finite, no bucket reaches beyond it.
    """
    rows = np.arange(len(bins))[:, None]
    fields = bins.reshape(len(bins), 2, -1)[:, :, :-1]  # the last is that of infinities and NaN
    top = _top(fields, bias, largest)
    reach = np.where(np.isfinite(largest), largest, sys.float_info.max)
    with np.errstate(over="ignore"):  # 2^1024, the end of the last bucket of float64
        only = (top > 1) & (reach == np.ldexp(1.0, top - bias))  # the one number up there: the edge of the bucket below
        top = top - only
        low = np.maximum(top - _BINADES + 1, 1)
        edges = np.ldexp(1.0, low[:, None] - bias + np.arange(_BINADES + 1))
    edges = np.minimum(np.concatenate([-edges[:, ::-1], edges], 1), reach[:, None])
    edges = np.maximum(edges, -reach[:, None])
    at = low[:, None] + np.arange(_BINADES)
    inside = at <= top[:, None]
    at = np.where(inside, at, 0)
    counts = np.zeros([len(bins), 2 * _BINADES + 1], bins.dtype)
    counts[:, _BINADES + 1 :] = np.where(inside, fields[rows, 0, at], 0)
    counts[:, _BINADES - 1 :: -1] = np.where(inside, fields[rows, 1, at], 0)
    if only.any():
        which, last = only.nonzero()[0], (top - low)[only]
        counts[which, _BINADES + 1 + last] += fields[which, 0, top[which] + 1]
        counts[which, _BINADES - 1 - last] += fields[which, 1, top[which] + 1]
    sums = fields.sum(2)
    counts[:, _BINADES] = sums.sum(1) - counts.sum(1)
    tables = np.stack([edges[:, :-1], edges[:, 1:], counts], 2)
    none: NDArray[Any] = sums == fields[:, :, 0]  # but zeros and subnormal numbers
    tables[none[:, 1], _BINADES, 0] = 0.0
    tables[none[:, 0], _BINADES, 1] = 0.0
    filled = counts > 0
    some = filled.any(1)
    first = np.where(some, filled.argmax(1), _BINADES)
    behind = np.where(some, filled.shape[1] - filled[:, ::-1].argmax(1), _BINADES + 1)
    at = np.arange(filled.shape[1])
    tables[(at < first[:, None]) | (at >= behind[:, None])] = 0.0
    return Buckets(tables, first, behind)


def magnitude(bits: int, form: Format) -> float:
    """The number with these bits, without its sign."""
    if bits > form.infinity:
        return math.nan
    if bits == form.infinity:
        return math.inf
    field, rest = divmod(bits, form.smallest)
    significand = rest + form.smallest if field else rest
    return math.ldexp(significand, max(field, 1) - form.bias - form.mantissa)


def _top(fields: NDArray[Any], bias: int, largest: NDArray[Any]) -> NDArray[Any]:
    """The field of the largest finite magnitude of each; 0 where all are subnormal."""
    finite = np.isfinite(largest)
    top = np.where(finite & (largest > 0), np.frexp(np.where(finite, largest, 0.0))[1] - 1 + bias, 0)
    if not finite.all():
        filled = fields[~finite].any(1)
        top[~finite] = np.where(filled.any(1), filled.shape[1] - 1 - filled[:, ::-1].argmax(1), 0)
    return np.maximum(top, 0)
