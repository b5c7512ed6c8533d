"""What rounding does to analytic gradients, measured: in runs that round at random, and at points nearby."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gradcheck._check.work import Work, eps_of
from gradcheck._derivatives.analytic import Gradient, analytic
from gradcheck._derivatives.point import Reals, as_reals, from_reals
from gradcheck._graph.evaluate import RUN_ERRORS
from gradcheck._graph.rounding import SEED, with_rounding

_RUNS = 6
_FACTOR = 3.0  # times the largest scatter among the runs
_UNIT = 2.0**-52
_COARSER = 8.0  # than float64, which would round the factors away


def rounding_of_gradients(work: Work, a: int) -> list[Reals | None]:
    """What `rounded_off` gives for the cotangents of an output; measured once."""
    if a not in work.roundings:
        work.roundings[a] = rounded_off(work, a, work.cotangents[a].weights)
    return work.roundings[a]


def rounded_off(work: Work, a: int, weights: Reals) -> list[Reals | None]:
    """Per x, how far float64 rounding may put its gradients off for some cotangents, [c, n]; None where there are none.

    Measured by letting the twin round at random, which shows what a gradient loses where large terms cancel in it, and
    at points that differ by rounding, which shows what kernels such as that of an inverse lose inside.
    """
    coarse = rounded_runs(work, a, weights, range(_RUNS), unit=_COARSER * _UNIT)
    near = nearby_runs(work, a, weights, np.random.default_rng(0), _RUNS, _UNIT)
    found = [_scatter(work, a, weights, coarse), _scatter(work, a, weights, near)]
    return [None if c is None or n is None else np.maximum(c / _COARSER, n) for c, n in zip(*found, strict=True)]


def constants_off(work: Work, a: int, weights: Reals) -> list[Reals | None]:
    """Per x, how far the rounding of constants may put the gradients of a narrow function off, [c, n].

    The twin takes constants as they are rounded, in the function and in its gradient; where both hold the same number,
    rounded apart, that shows as a difference that is no defect. None where nothing is narrow.
    """
    if not work.point.narrow:
        return [None] * len(work.traced.sources)
    return _scatter(work, a, weights, rounded_runs(work, a, weights, range(_RUNS), constants=True))


def both_off(work: Work, a: int, weights: Reals) -> list[Reals | None]:
    """The sum of `rounded_off` and `constants_off`."""
    found = zip(rounded_off(work, a, weights), constants_off(work, a, weights), strict=True)
    return [own if constants is None or own is None else own + constants for own, constants in found]


def _scatter(work: Work, a: int, weights: Reals, runs: Sequence[list[Gradient]]) -> list[Reals | None]:
    """Per x, the largest difference between some runs and the plain gradients, and a good part more."""
    found: list[Reals | None] = []
    for x, plain in enumerate(analytic(work.point, a, weights, work.shapes[a], wide=True)):
        values = [run[x].value for run in runs]
        gaps = [np.abs(v - plain.value) for v in values if v is not None and plain.value is not None]
        found.append(_FACTOR * np.nan_to_num(np.max(gaps, axis=0), posinf=0.0) if gaps else None)
    return found


def rounded_runs(
    work: Work, a: int, weights: Reals, seeds: Sequence[int], *, unit: float | None = None, constants: bool = False
) -> list[list[Gradient]]:
    """Gradients of the twin with random rounding, one run per seed; runs that cannot be made are left out.

    Rounding may change a number that decides a shape, such as the limit of a floating range. Arguments as of
    `gradcheck._graph.rounding.with_rounding`.
    """
    rounding = partial(with_rounding, unit=unit, constants=constants)
    if not work.point.program(wide=True).functions:
        moved = {SEED: np.repeat(np.array(seeds, np.int32), len(weights))}
        key = ("rounded at random", unit, constants)
        with contextlib.suppress(*RUN_ERRORS):
            return _several(work, a, weights, len(seeds), moved=moved, rounding=(key, partial(rounding, seed=None)))
    runs = []
    for seed in seeds:
        with contextlib.suppress(*RUN_ERRORS):
            runs += _several(work, a, weights, 1, rounding=(None, partial(rounding, seed=seed)))
    return runs


def nearby_runs(
    work: Work, a: int, weights: Reals, rng: np.random.Generator, count: int, eps: float | None = None
) -> list[list[Gradient]]:
    """Gradients of the twin at points up to two units of rounding away: of `eps`, or of the dtype of each source."""
    moved: dict[str, Any] = {}
    for source in work.traced.sources:
        if source.argument is not None and source.argument not in moved:
            value = work.point.source_value(source, wide=True)
            reals = as_reals(value)
            factors = 1 + (eps or eps_of(source.dtype.name)) * rng.integers(-2, 3, (count, reals.size))
            near = from_reals(reals * factors, value.shape, value.dtype, lead=1)
            moved[source.argument] = np.repeat(near, len(weights), axis=0)
    return _several(work, a, weights, count, moved=moved)


def _several(work: Work, a: int, weights: Reals, count: int, **options: Any) -> list[list[Gradient]]:
    """Gradients of the twin, several runs in one batch; options as of `analytic`."""
    found = analytic(work.point, a, np.tile(weights, (count, 1)), work.shapes[a], wide=True, **options)
    k = len(weights)
    return [
        [g if g.value is None else replace(g, value=g.value[run * k : run * k + k]) for g in found]
        for run in range(count)
    ]
