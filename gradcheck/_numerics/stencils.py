"""Difference stencils with exact rational weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

NINE = tuple(range(-4, 5))
SEVEN = tuple(range(-3, 4))
RIGHT = tuple(range(9))
LEFT = tuple(range(0, -9, -1))
ORDERS = (2, 4, 6, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stencil:
    """Weights that turn samples at multiples of a step into a derivative times a power of the step."""

    grid: tuple[int, ...]
    weights: tuple[Fraction, ...]  # one per grid point


@functools.cache
def _stencil(grid: tuple[int, ...], order: int) -> Stencil:
    size = len(grid)
    # Gauss-Jordan on the Vandermonde system sum_k w_k g_k^m = order! [m == order], m = 0 .. size-1.
    rows = [[Fraction(g) ** m for g in grid] + [Fraction(math.factorial(order) * (m == order))] for m in range(size)]
    for i in range(size):
        pivot = next(r for r in range(i, size) if rows[r][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [entry / rows[i][i] for entry in rows[i]]
        for r in range(size):
            if r != i and rows[r][i]:
                rows[r] = [a - rows[r][i] * b for a, b in zip(rows[r], rows[i], strict=True)]
    return Stencil(grid=grid, weights=tuple(row[-1] for row in rows))


def stencil(grid: Sequence[int], order: int) -> Stencil:
    """Weights that differentiate every polynomial of degree < len(grid) exactly.

    Args:
        grid: Distinct integer multiples of the step, e.g. (-1, 0, 1).
        order: Order of the derivative; must be less than len(grid).

    Returns:
        The stencil. Weights are fractions: rounding starts when they meet samples.

    Raises:
        ValueError: If grid points repeat, or there are too few for the order.
    """
    points = tuple(int(g) for g in grid)
    if len(set(points)) != len(points):
        raise ValueError(f"grid points must be distinct, got grid={points!r}")
    if not 0 <= order < len(points):
        raise ValueError(f"order must be at least 0 and below the {len(points)} grid points, got order={order!r}")
    return _stencil(points, order)


@functools.cache
def ladder(grid: tuple[int, ...]) -> tuple[Stencil, ...]:
    """First-derivative stencils of orders 2, 4, 6 and, of nine points, 8 on those points that lie nearest to zero."""
    reach = {order: order // 2 if min(grid) < 0 < max(grid) else order for order in ORDERS if order < len(grid)}
    return tuple(stencil([g for g in grid if abs(g) <= farthest], 1) for farthest in reach.values())


def weight_matrix(stencils: Sequence[Stencil], grid: Sequence[int]) -> npt.NDArray[np.float64]:
    """Weights of each stencil at each point of a common grid, shape [stencils, points]; zero where it has none."""
    found = [dict(zip(s.grid, s.weights, strict=True)) for s in stencils]
    return np.array([[float(weights.get(g, 0)) for g in grid] for weights in found])
