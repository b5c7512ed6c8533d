"""How smooth a function is at a point, and its derivatives on either side, from nine samples around it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradcheck._numerics.estimates import ROUNDING, truncation_of
from gradcheck._numerics.stencils import stencil, weight_matrix

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_VISIBLE = 8.0  # a second difference this many times above the noise is more than noise
_STEADY = 0.25  # exponents at two distances agree within this


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Exponents of growth of the even and the odd part of a function around a point, each of shape [...].

    An exponent is steady where two distances agree on it: the feature that it tells of lies at the point itself.
    """

    even: Floats  # 2 smooth (also where too small to be seen), 1 kink, 0.5 square root, 0 jump
    even_steady: Bools
    odd: Floats  # 1 smooth (also where too small to be seen), 1/3 cube root, 0 jump
    odd_steady: Bools
    bend: Floats  # how far the samples next to the point are from what a smooth function has there

    @property
    def kink(self) -> Bools:
        """Slopes to the left and to the right differ."""
        return self.even_steady & (np.abs(self.even - 1) <= _STEADY) & ~self.vertical & ~self.jump

    @property
    def jump(self) -> Bools:
        """Values to the left and to the right differ."""
        return (self.even_steady & (self.even < 0.25)) | (self.odd_steady & (self.odd < 0.2))

    @property
    def vertical(self) -> Bools:
        """The slope grows without bound."""
        even = self.even_steady & (self.even >= 0.25) & (self.even < 1 - _STEADY)
        odd = self.odd_steady & (self.odd >= 0.2) & (self.odd < 0.8)
        return (even | odd) & ~self.jump

    @property
    def singular(self) -> Bools:
        """Any of kink, jump and vertical."""
        return self.kink | self.jump | self.vertical


def _exponent(near: Floats, middle: Floats, far: Floats, noise: Floats, smooth: float) -> tuple[Floats, Bools]:
    visible = np.minimum(np.minimum(np.abs(near), np.abs(middle)), np.abs(far)) > _VISIBLE * noise
    with np.errstate(all="ignore"):
        first = np.where(visible, np.log2(np.abs(middle / near)), smooth)
        second = np.where(visible, np.log2(np.abs(far / middle)), smooth)
    return 0.5 * (first + second), visible & (np.abs(first - second) <= _STEADY)


def shape_at_point(samples: Floats, noise: Floats) -> Shape:
    """Exponents from samples at -4 .. 4 steps, shape [9, ...], whose noise [...] is known."""
    moved = samples - samples[4]
    even = moved[5:] + moved[3::-1]
    odd = samples[5:] - samples[3::-1]
    even_exponent, even_steady = _exponent(even[0], even[1], even[3], noise, 2.0)
    odd_exponent, odd_steady = _exponent(odd[0], odd[1], odd[3], noise, 1.0)
    bend = np.where(odd_steady & (odd_exponent < 0.8), np.maximum(np.abs(even[0]), np.abs(odd[0])), np.abs(even[0]))
    return Shape(even=even_exponent, even_steady=even_steady, odd=odd_exponent, odd_steady=odd_steady, bend=bend)


def shape_at_edge(samples: Floats, noise: Floats) -> Shape:
    """Exponents from samples at 0 .. 8 steps to one side, shape [9, ...]: only vertical slopes can be seen."""
    moved = samples - samples[0]
    exponent, steady = _exponent(moved[1], moved[2], moved[4], noise, 1.0)
    nothing = np.zeros(exponent.shape, np.bool_)
    return Shape(
        even=np.full(exponent.shape, 2.0), even_steady=nothing, odd=exponent, odd_steady=steady, bend=np.abs(moved[1])
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """One-sided derivatives and how far each may be off, every field of shape [...]."""

    left: Floats
    left_error: Floats
    right: Floats
    right_error: Floats


@functools.cache
def _side_weights(first: int) -> tuple[Floats, Floats]:
    """Weights of orders up to 4 on points first .. 4 as rows, and their 2-norms as a column."""
    grid = range(first, 5)
    stencils = [stencil(range(first, last + 1), 1) for last in range(first + 1, 5)]
    weights = weight_matrix(stencils, grid)
    return weights, np.sqrt(np.square(weights).sum(axis=1, keepdims=True))


def _side(points: Floats, step: Floats, noise: Floats, first: int) -> tuple[Floats, Floats]:
    weights, norms = _side_weights(first)
    estimates = weights @ (points[first:] - points[first])
    totals = truncation_of(estimates) + ROUNDING * noise * norms
    best = totals.argmin(axis=0)[None]
    value, error = (np.take_along_axis(a, best, axis=0)[0] / step for a in (estimates, totals))
    return value, error


def one_sided(samples: Floats, step: Floats, noise: Floats, *, jump: Bools | None = None) -> Sides:
    """Derivatives to the left and to the right of the point.

    Args:
        samples: Values at -4 .. 4 steps, shape [9, ...].
        step: The step, shape [...].
        noise: Noise of the samples, shape [...].
        jump: Where True, the value at the point itself belongs to neither side and is left out.

    Returns:
        The derivatives. Errors come from the orders 1 to 4 among each other, and from the noise.
    """
    shape = samples.shape[1:]
    flat = samples.reshape(9, -1)
    steps, noises = (np.broadcast_to(a, shape).reshape(-1) for a in (step, noise))
    with np.errstate(all="ignore"):
        left, left_error = _side(flat[4::-1], -steps, noises, 0)
        right, right_error = _side(flat[4:], steps, noises, 0)
        if jump is not None and jump.any():
            apart = np.broadcast_to(jump, shape).reshape(-1)
            other, other_error = _side(flat[4::-1], -steps, noises, 1)
            left, left_error = np.where(apart, other, left), np.where(apart, other_error, left_error)
            other, other_error = _side(flat[4:], steps, noises, 1)
            right, right_error = np.where(apart, other, right), np.where(apart, other_error, right_error)
    left_error, right_error = np.abs(left_error), np.abs(right_error)
    found = [
        np.where(np.isfinite(v) & np.isfinite(e), e, np.inf) for v, e in ((left, left_error), (right, right_error))
    ]
    left, right = np.nan_to_num(left), np.nan_to_num(right)
    return Sides(
        left=left.reshape(shape),
        left_error=found[0].reshape(shape),
        right=right.reshape(shape),
        right_error=found[1].reshape(shape),
    )
