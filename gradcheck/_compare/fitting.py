"""The numbers with which a rule comes closest to an optimizer's trajectory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradcheck._compare.arrays import Array, Replay
from gradcheck._compare.deviations import Number
from gradcheck._compare.recording import Recording
from gradcheck.optimizers._rule import Rule

_MOST_STEPS, _MOST_ENTRIES = 96, 128  # of the trajectory, that are fitted; all of it is judged
_EARLY = 7  # steps
_ZOOMS, _POINTS = 4, 13
_NEWTON = 10
_INDISTINCT = 1e-5  # the least that normed changes by two numbers must differ by
_FAR = 1e100  # in place of infinities
_COARSE = 11  # points of each grid, where two numbers are fitted


class Fit:
    """The sum of squares between rule and trajectory, in units of what rounding allows.

    Args:
        recording: The trajectory.
        first_apart: The first step at which the reference is not on it.
        early: Whether to look at it for a few steps from there on only, by which most changes are seen not to fit.
    """

    def __init__(self, recording: Recording, first_apart: int, *, early: bool = False) -> None:
        most = first_apart + _EARLY if early else max(_MOST_STEPS, first_apart + _MOST_STEPS // 2)
        steps = min(len(recording.weights), most)
        entries = np.arange(len(recording.start))
        if len(entries) > _MOST_ENTRIES:
            far = abs(np.array(recording.weights[:steps]) - np.array(recording.reference[:steps])).max(0)
            entries = np.sort(np.argsort(-np.nan_to_num(far, nan=np.inf), kind="stable")[:_MOST_ENTRIES])
        self._start, self._leaf = recording.start[entries], recording.layout.leaf[recording.layout.kept[entries]]
        self._gradients = [g[entries] for g in recording.gradients[:steps]]
        self._norms = recording.norms[:steps]
        self._target = [w[entries] for w in recording.wide[:steps]]
        self._scale = [_positive(a[entries]) for a in recording.allowed[:steps]]

    def residuals(self, rule: Rule, fitted: Sequence[Number], points: Array) -> Array:
        """Of shape [k, steps * entries], of the rule with the numbers at each of k points of shape [k, p]."""
        replay, found = Replay(_changed(rule, fitted, points), self._start, self._leaf), []
        for row in zip(self._gradients, self._norms, self._target, self._scale, strict=True):
            gradient, norms, target, scale = row
            with np.errstate(all="ignore"):
                off = (replay.step(gradient, norms) - target) / scale
            found.append(np.broadcast_to(off, (len(points), len(target))))
        every = np.concatenate(found, axis=-1)
        return np.clip(np.nan_to_num(every, nan=_FAR, posinf=_FAR, neginf=-_FAR), -_FAR, _FAR)

    def best(self, rule: Rule, fitted: Sequence[Number]) -> tuple[float, ...]:
        """The numbers that come closest, as far as a search from a grid finds them."""
        found = self._scan(rule, fitted)
        if len(fitted) == 1:
            found = self._zoom(rule, fitted[0], found)
        return self._newton(rule, fitted, found)

    def determines(self, rule: Rule, fitted: Sequence[Number], at: Sequence[float]) -> bool:
        """Whether the trajectory tells the numbers from each other: no mixture of them can be changed unseen."""
        slope = self._slope(rule, fitted, np.array(at))[1]
        size = np.sqrt((slope**2).sum(-1, keepdims=True))
        if not (size > 0).all():
            return False
        return bool(np.linalg.svd(slope / size, compute_uv=False)[-1] > _INDISTINCT)

    def _slope(self, rule: Rule, fitted: Sequence[Number], at: Array) -> tuple[Array, Array]:
        """The residuals at a point, and how they change with each number."""
        small = 1e-6 * np.maximum(abs(at), 1e-9)
        small = np.where(at + small > [n.most for n in fitted], -small, small)
        residuals = self.residuals(rule, fitted, np.vstack([at, at + np.diag(small)]))
        return residuals[0], (residuals[1:] - residuals[0]) / small[:, None]

    def _cost(self, rule: Rule, fitted: Sequence[Number], points: Array) -> Array:
        """Of shape [k] at points of shape [k, p]."""
        residuals = self.residuals(rule, fitted, points)
        largest = np.maximum(abs(residuals).max(-1, keepdims=True), 1.0)
        costs: Array = np.log1p(((residuals / largest) ** 2).sum(-1)) + 2 * np.log(largest[:, 0])
        return costs

    def _scan(self, rule: Rule, fitted: Sequence[Number]) -> Array:
        grids = [number.grid for number in fitted]
        if len(fitted) > 1:
            grids = [grid[np.linspace(0, len(grid) - 1, _COARSE).astype(int)] for grid in grids]
        points = np.array(list(itertools.product(*grids)))
        best: Array = points[np.argmin(self._cost(rule, fitted, points))]
        return best

    def _zoom(self, rule: Rule, number: Number, at: Array) -> Array:
        grid = number.grid
        for _ in range(_ZOOMS):
            k = int(np.argmin(abs(grid - at[0])))
            low, high = grid[max(k - 1, 0)], grid[min(k + 1, len(grid) - 1)]
            grid = np.geomspace(low, high, _POINTS) if low > 0 else np.linspace(low, high, _POINTS)
            points = grid[:, None]
            at = points[np.argmin(self._cost(rule, [number], points))]
        return at

    def _newton(self, rule: Rule, fitted: Sequence[Number], at: Array) -> tuple[float, ...]:
        """Gauss and Newton's iteration, damped; it stops where it no longer comes closer."""
        at = at.astype(np.float64)
        for _ in range(_NEWTON):
            residuals, slope = self._slope(rule, fitted, at)
            if not slope.any() or abs(residuals).max() >= _FAR:  # nothing changes, or no number comes of it
                break
            move = _least_squares(slope, residuals)
            tries = np.array([at - move * factor for factor in (1.0, 0.5, 0.1, 0.01)])
            tries = np.clip(tries, [n.least for n in fitted], [n.most for n in fitted])
            costs = self._cost(rule, fitted, np.vstack([at, tries]))
            chosen = int(np.argmin(costs))
            if chosen == 0:
                break
            at = tries[chosen - 1]
        return tuple(float(x) for x in at)


def _changed(rule: Rule, fitted: Sequence[Number], points: Array) -> Any:
    """The rule with the numbers at each of k points of shape [k, p]."""
    for i, number in enumerate(fitted):
        rule = number.change(rule, points[:, i : i + 1])
    return rule


def _least_squares(slope: Array, residual: Array) -> Array:
    size = np.sqrt((slope**2).sum(-1))
    size = np.where(size > 0, size, 1.0)
    return np.asarray(np.linalg.lstsq((slope / size[:, None]).T, residual, rcond=1e-10)[0] / size)


def _positive(allowed: Array) -> Array:
    positive: Array = np.maximum(allowed, np.finfo(np.float64).tiny * 1e20)
    return positive
