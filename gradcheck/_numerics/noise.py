"""The noise of a function, seen in equispaced samples."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_SPREAD = 4.0  # levels of the table that agree within this factor show one and the same noise


@functools.cache
def _table(points: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """How many differences of each order there are, where they begin, and what makes noise levels of them."""
    counts = np.arange(points - 1, 0, -1)
    # Independent noise of variance v gives differences of order k the variance v (2k)! / (k!)^2.
    factors = np.array([1.0 / math.comb(2 * k, k) / (points - k) for k in range(1, points)])[:, None]
    return counts, np.cumsum(counts) - counts, factors


def _differences(values: Floats) -> Floats:
    """All differences of all orders of a few values, order after order, shape [points (points - 1) / 2, n]."""
    counts, starts, _ = _table(len(values))
    table = np.empty((int(counts.sum()), values.shape[1]))
    np.subtract(values[1:], values[:-1], out=table[: counts[0]])
    for count, start in zip(counts[:-1], starts[:-1], strict=True):
        last = table[start : start + count]
        np.subtract(last[1:], last[:-1], out=table[start + count : start + 2 * count - 1])
    return table


def _unsettled(levels: Floats) -> Floats:
    """The last order, unless it is small by luck: each order is expected to fall as the one before it did."""
    expected = np.square(levels[-3:-1]) / np.maximum(levels[-4:-2], np.finfo(np.float64).tiny)
    bound: Floats = np.maximum(levels[-1], np.minimum(expected, levels[-3:-1]).max(axis=0))
    return bound


def ecnoise(samples: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Standard deviation of the noise in seven or nine equispaced samples.

    In a table of differences a smooth function dies out from order to order while noise stays: the first three
    orders that agree, and whose differences change sign, show it. Jorge Moré and Stefan Wild, Estimating
    Computational Noise, SIAM J. Sci. Comput. 33(3), 2011, https://doi.org/10.1137/100786125.

    Args:
        samples: Values at equispaced points, shape [7 or 9, ...]; any magnitude, finite.

    Returns:
        The noise, shape [...], and whether it settled. Where it did not, what is left of the function itself may
        be counted as noise.
    """
    flat = samples.reshape(len(samples), -1)
    moved = flat - flat[len(samples) // 2]
    # Squares of differences must neither overflow nor vanish: bring the largest into [0.5, 1).
    _, exponent = np.frexp(np.abs(moved).max(axis=0))
    differences = _differences(np.ldexp(moved, -exponent))
    counts, starts, factors = _table(len(samples))
    orders = [differences[start : start + count] for start, count in zip(starts, counts, strict=True)]
    levels = np.sqrt(factors * np.stack([np.einsum("ij,ij->j", d, d) for d in orders]))
    swings = np.stack([(d.min(axis=0) < 0) & (d.max(axis=0) > 0) for d in orders[1:-2]])
    # Windows of three start at order 2: order 1 is mostly the slope of the function.
    greatest = np.maximum(np.maximum(levels[1:-2], levels[2:-1]), levels[3:])
    least = np.minimum(np.minimum(levels[1:-2], levels[2:-1]), levels[3:])
    agree = swings & (greatest <= _SPREAD * least)
    first = agree.argmax(axis=0)
    settled = agree.any(axis=0)
    noise = np.where(settled, greatest[first, np.arange(first.size)], _unsettled(levels))
    shape = samples.shape[1:]
    return np.ldexp(noise, exponent).reshape(shape), settled.reshape(shape)
