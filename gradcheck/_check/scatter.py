"""What rounding does to analytic gradients, measured: in runs that round at random, and at points nearby."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from gradcheck._check.work import Work, eps_of
from gradcheck._derivatives.analytic import Gradient, analytic
from gradcheck._derivatives.point import Reals, as_reals, from_reals, wide_dtype
from gradcheck._graph.evaluate import RUN_ERRORS
from gradcheck._graph.handed import hands_arguments
from gradcheck._graph.rounding import SEED, with_rounding

_RUNS = 6
_FACTOR = 3.0  # times the largest scatter among the runs
_UNIT = 2.0**-52
_NEARBY = 2.0**-12  # of each number
_OTHER, _ENOUGH = 0.9, 3  # part of the largest distance at which points nearby are off, and how many must be
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
    return _off(work, a, weights, _near(work, a, weights))


def _near(work: Work, a: int, weights: Reals) -> list[list[Gradient]]:
    return nearby_runs(work, a, weights, np.random.default_rng(0), _RUNS, _UNIT)


def _off(work: Work, a: int, weights: Reals, near: Sequence[list[Gradient]]) -> list[Reals | None]:
    coarse = rounded_runs(work, a, weights, range(_RUNS), unit=_COARSER * _UNIT)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """What rounding may do to some gradients, [c, n]: how far it puts them off, and what they are a rounding away."""

    off: Reals
    beside: Reals  # nan where they are as here, or differ from point to point


def both_off(work: Work, a: int, weights: Reals) -> list[Rounding | None]:
    """Per x, the sum of what `rounded_off` and `constants_off` give, and the gradients beside the point."""
    near = _near(work, a, weights)
    found = zip(
        _off(work, a, weights, near), constants_off(work, a, weights), _beside(work, a, weights, near), strict=True
    )
    return [
        None if own is None or beside is None else Rounding(off=own if c is None else own + c, beside=beside)
        for own, c, beside in found
    ]


def _beside(work: Work, a: int, weights: Reals, runs: Sequence[list[Gradient]]) -> list[Reals | None]:
    """Per x, the gradients on which points nearby agree, and which are others than at the point."""
    found: list[Reals | None] = []
    for x, plain in enumerate(analytic(work.point, a, weights, work.shapes[a], wide=True)):
        values = [run[x].value for run in runs]
        if plain.value is None or any(v is None for v in values):
            found.append(None)
            continue
        stacked = np.stack([np.asarray(v, np.float64) for v in values])
        gaps = np.abs(stacked - plain.value)
        moved = gaps > _OTHER * np.max(gaps, axis=0)  # those that rounding left at the point itself are not beside it
        with np.errstate(invalid="ignore"):
            high = np.max(np.where(moved, stacked, -np.inf), axis=0)
            low = np.min(np.where(moved, stacked, np.inf), axis=0)
            agreed = (moved.sum(axis=0) >= _ENOUGH) & (high - low <= (1 - _OTHER) * np.max(gaps, axis=0))
            found.append(np.where(agreed, (high + low) / 2, np.nan))
    return found


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
    if hands_arguments(work.point.program(wide=True)):
        moved = {SEED: np.repeat(np.array(seeds, np.int32), len(weights))}
        key = ("rounded at random", unit, constants)
        with contextlib.suppress(*RUN_ERRORS):
            once = key, partial(rounding, seed=None)
            return _several(work, a, weights, len(seeds), wide=True, moved=moved, rounding=once)
    runs = []
    for seed in seeds:
        with contextlib.suppress(*RUN_ERRORS):
            runs += _several(work, a, weights, 1, wide=True, rounding=(None, partial(rounding, seed=seed)))
    return runs


def nearby_runs(
    work: Work, a: int, weights: Reals, rng: np.random.Generator, count: int, eps: float | None = None
) -> list[list[Gradient]]:
    """Gradients of the twin at points up to two units of rounding away: of `eps`, or of the dtype of each source."""

    def move(reals: Reals, dtype: str) -> Reals:
        return reals * (1 + (eps or eps_of(dtype)) * rng.integers(-2, 3, (count, reals.size)))

    return _several(work, a, weights, count, wide=True, moved=_nearby(work, move, len(weights), wide=True))


def native_errors(work: Work, a: int, weights: Reals, count: int) -> list[Reals | None]:
    """Per x, native gradients minus those of the twin at points nearby: [count, c, n].

    What rounding does, in kernels too that nothing else can look into, is another error at each of them. They are some
    thousands of roundings away, for that of a mean of many numbers stays the same where each moves by one or two.
    """
    rng = np.random.default_rng(work.options.seed)

    def move(reals: Reals, dtype: str) -> Reals:
        return reals * (1 + max(_NEARBY, 8 * eps_of(dtype)) * rng.uniform(-1, 1, (count, reals.size)))

    near = _nearby(work, move, len(weights), wide=False)
    wider = {name: value.astype(wide_dtype(value.dtype)) for name, value in near.items()}
    own = _several(work, a, weights, count, wide=False, moved=near)
    exact = _several(work, a, weights, count, wide=True, moved=wider)
    found: list[Reals | None] = []
    for x in range(len(work.traced.sources)):
        pairs = [(o[x].value, e[x].value) for o, e in zip(own, exact, strict=True)]
        gaps = [o - e for o, e in pairs if o is not None and e is not None]
        found.append(np.stack(gaps) if gaps else None)
    return found


def _nearby(work: Work, move: Callable[[Reals, str], Reals], cotangents: int, *, wide: bool) -> dict[str, Any]:
    """Values of the arguments at points to which `move` takes their reals, each as often as there are cotangents."""
    moved: dict[str, Any] = {}
    for source in work.traced.sources:
        if source.argument is not None and source.argument not in moved:
            value = work.point.source_value(source, wide=wide)
            near = from_reals(move(as_reals(value), source.dtype.name), value.shape, value.dtype, lead=1)
            moved[source.argument] = np.repeat(near, cotangents, axis=0)
    return moved


def _several(work: Work, a: int, weights: Reals, count: int, **options: Any) -> list[list[Gradient]]:
    """Gradients of several runs, in one batch; options as of `analytic`."""
    found = analytic(work.point, a, np.tile(weights, (count, 1)), work.shapes[a], **options)
    k = len(weights)
    return [
        [g if g.value is None else replace(g, value=g.value[run * k : run * k + k]) for g in found]
        for run in range(count)
    ]
