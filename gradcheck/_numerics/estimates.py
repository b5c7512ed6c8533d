"""Derivatives with error bars from one window of equispaced samples."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradcheck._numerics.noise import ecnoise
from gradcheck._numerics.stencils import ORDERS, ladder, weight_matrix

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ROUNDING = 2.5  # standard deviations of rounding in an error bar
_NOISY_ROUNDING = 5.0  # the same where noise is measured from a few samples, not derived from the dtype
_HIGHEST = 0.9
LOUD = 30.0  # measured noise this far above rounding needs another explanation than rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """What one window tells about each problem; every field of shape [n], meaningless where not finite."""

    value: Floats
    error: Floats  # truncation + rounding
    truncation: Floats
    rounding: Floats
    noise: Floats
    measured: Floats  # noise as the samples show it, below or above the floor
    floor: Floats  # noise that rounding alone explains
    order: npt.NDArray[np.int64]
    settled: Bools
    loud: Bools
    finite: Bools


@functools.cache
def _weights(grid: tuple[int, ...]) -> tuple[Floats, Floats]:
    matrix = weight_matrix(ladder(grid), grid)
    return matrix, np.sqrt(np.square(matrix).sum(axis=1, keepdims=True))


def truncation_of(slopes: Floats) -> Floats:
    """What each order leaves out, by its distance to all higher ones; slopes from low to high order, shape [p, n].

    One distance alone may vanish by accident. The highest order is hardly worse than the one before it.
    """
    distances = np.empty_like(slopes)
    for order in range(len(slopes) - 1):
        distances[order] = np.abs(slopes[order + 1 :] - slopes[order]).max(axis=0)
    distances[-1] = _HIGHEST * distances[-2]
    return distances


def smallest_normal(eps: float) -> float:
    """The least normal number of the dtype with this eps: results below it may have been flushed to zero."""
    return float(np.finfo(np.float32 if eps > 1e-9 else np.float64).tiny)


def estimate(
    samples: Floats, step: Floats, grid: tuple[int, ...], *, eps: float, argument_noise: Floats, grain: Floats
) -> Estimates:
    """Differentiate at grid point 0, at the order whose error bar is smallest.

    Args:
        samples: Values at `grid` times `step`, shape [points, n].
        step: Steps, shape [n].
        grid: `NINE`, `SEVEN`, `RIGHT` or `LEFT`.
        eps: Spacing of the dtype in which the samples were computed, relative.
        argument_noise: Noise from the rounding of the arguments, shape [n].
        grain: Noise of the function itself where it is known by now, else 0, shape [n].
    """
    peak = np.abs(samples).max(axis=0)
    finite = np.isfinite(peak)
    if not finite.all():
        samples, peak = np.where(finite, samples, 0.0), np.where(finite, peak, 0.0)
    weights, norms = _weights(grid)
    base = samples[grid.index(0)]
    slopes = weights @ (samples - base)
    measured, settled = ecnoise(samples)
    floor = 0.5 * eps * peak + argument_noise + smallest_normal(eps)
    loud = measured > LOUD * floor
    noise = np.maximum(np.maximum(measured, floor), grain)
    roundings = np.where(loud, _NOISY_ROUNDING, ROUNDING) * noise * norms
    truncations = truncation_of(slopes)
    totals = truncations + roundings
    best = totals.argmin(axis=0)
    pick = best, np.arange(best.size)
    # A rounding function that stays put over eight steps moved by at most one rounding in all.
    still = (samples == base).all(axis=0)
    rounding = np.where(still, 0.25 * np.maximum(floor, grain), roundings[pick]) / step
    truncation = truncations[pick] / step
    return Estimates(
        value=slopes[pick] / step,
        error=truncation + rounding,
        truncation=truncation,
        rounding=rounding,
        noise=noise,
        measured=measured,
        floor=floor,
        order=np.asarray(ORDERS, np.int64)[best],
        settled=settled,
        loud=loud,
        finite=finite,
    )
