"""The noise of a function, seen in equispaced samples."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_POINTS = 9
_SPREAD = 4.0  # levels of the table that agree within this factor show one and the same noise


_COUNTS = np.arange(_POINTS - 1, 0, -1)  # how many differences there are of orders 1 to 8
_STARTS = np.cumsum(_COUNTS) - _COUNTS
# Independent noise of variance v gives differences of order k the variance v (2k)! / (k!)^2.
_FACTORS = np.array([1.0 / math.comb(2 * k, k) / (_POINTS - k) for k in range(1, _POINTS)])[:, None]


def _differences(values: Floats) -> Floats:
    """All differences of orders 1 to 8 of nine values, order after order, shape [36, n]."""
    table = np.empty((int(_COUNTS.sum()), values.shape[1]))
    np.subtract(values[1:], values[:-1], out=table[: _COUNTS[0]])
    for count, start in zip(_COUNTS[:-1], _STARTS[:-1], strict=True):
        last = table[start : start + count]
        np.subtract(last[1:], last[:-1], out=table[start + count : start + 2 * count - 1])
    return table


def _unsettled(levels: Floats) -> Floats:
    """The last order, unless it is small by luck: each order is expected to fall as the one before it did."""
    expected = np.square(levels[5:7]) / np.maximum(levels[4:6], np.finfo(np.float64).tiny)
    bound: Floats = np.maximum(levels[7], np.minimum(expected, levels[5:7]).max(axis=0))
    return bound


def ecnoise(samples: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Standard deviation of the noise in nine equispaced samples.

    In a table of differences a smooth function dies out from order to order while noise stays: the first three
    orders that agree, and whose differences change sign, show it. Jorge Moré and Stefan Wild, Estimating
    Computational Noise, SIAM J. Sci. Comput. 33(3), 2011, https://doi.org/10.1137/100786125.

    Args:
        samples: Values at equispaced points, shape [9, ...]; any magnitude, finite.

    Returns:
        The noise, shape [...], and whether it settled. Where it did not, what is left of the function itself may
        be counted as noise.
    """
    flat = samples.reshape(_POINTS, -1)
    moved = flat - flat[_POINTS // 2]
    # Squares of differences must neither overflow nor vanish: bring the largest into [0.5, 1).
    _, exponent = np.frexp(np.abs(moved).max(axis=0))
    differences = _differences(np.ldexp(moved, -exponent))
    orders = [differences[start : start + count] for start, count in zip(_STARTS, _COUNTS, strict=True)]
    levels = np.sqrt(_FACTORS * np.stack([np.einsum("ij,ij->j", d, d) for d in orders]))
    swings = np.stack([(d.min(axis=0) < 0) & (d.max(axis=0) > 0) for d in orders[1:6]])
    # Windows of three start at order 2: order 1 is mostly the slope of the function.
    greatest = np.maximum(np.maximum(levels[1:6], levels[2:7]), levels[3:8])
    least = np.minimum(np.minimum(levels[1:6], levels[2:7]), levels[3:8])
    agree = swings & (greatest <= _SPREAD * least)
    first = agree.argmax(axis=0)
    settled = agree.any(axis=0)
    noise = np.where(settled, greatest[first, np.arange(first.size)], _unsettled(levels))
    shape = samples.shape[1:]
    return np.ldexp(noise, exponent).reshape(shape), settled.reshape(shape)
