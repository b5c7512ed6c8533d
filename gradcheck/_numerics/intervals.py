"""Numeric derivatives as intervals: value and error, refined until the error is small enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradcheck._numerics.estimates import estimate, smallest_normal
from gradcheck._numerics.search import DETUNED, TRUSTED_STEP, Search
from gradcheck._numerics.stencils import LEFT, NINE, RIGHT

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Sample = Callable[[Integers, Floats, tuple[int, ...]], Floats]

_CHUNK = 2**12  # problems looked at together: their tables of differences fit into the cache
_NEGLIGIBLE = 2.0**40  # times the least normal number: errors below are no use to anybody


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivatives:
    """Measured derivatives and how far each may be off; every array of shape [groups, channels].

    At a kink `value` is the mean of both sides and `error` reaches both; at a jump, and where the slope grows
    without bound, `error` is inf, and left and right are the slopes of the branches, as far as they have any.
    Elsewhere the one-sided derivatives are the derivative. At the edge of a domain only one side is known, and it
    gives the value.
    """

    value: Floats
    error: Floats  # inf where unknown, never nan
    noise: Floats  # of the samples
    step: Floats
    order: Integers  # of the stencil: 2, 4, 6 or 8; 0 where there is none
    points: Integers  # that were sampled together: 9, or 7 where as many told enough
    kink: Bools  # a kink, a jump or a vertical slope at the very point
    jump: Bools
    left: Floats
    right: Floats
    left_error: Floats
    right_error: Floats
    nonfinite: Bools  # no stencil at all had finite samples
    base: Floats  # value of the function at the point
    evaluations: int  # of the functions of one group at one point, in all


@dataclass(slots=True, kw_only=True)
class _Results:
    """The arrays of `Derivatives` while they are written, groups and channels in one axis."""

    value: Floats
    error: Floats
    noise: Floats
    step: Floats
    order: Integers
    points: Integers
    kink: Bools
    jump: Bools
    left: Floats
    right: Floats
    left_error: Floats
    right_error: Floats
    nonfinite: Bools
    base: Floats


def differentiate(
    sample: Sample,
    groups: int,
    *,
    step: float | Floats,
    eps: float,
    target: float | Floats,
    argument_noise: float | Floats = 0.0,
    rounds: int = 8,
    loudest: float | Floats = np.inf,
    begin: tuple[int, ...] = NINE,
) -> Derivatives:
    """Differentiate functions of one variable t at t = 0.

    All are sampled at nine points at once; those whose error exceeds the target are sampled again at other steps,
    up to `rounds` times (and as often again at one side only, where the other side is not finite).

    What nine samples cannot show is not in the error: a function that oscillates in time with the samples, and one
    whose values are rounded to a coarse grid in step with them (one point in some hundred, where an intermediate
    result is more than 1e6 times larger than the result).

    Args:
        sample: Called as `sample(index, step, grid)` with index and step of shape [q]; gives the values, shape
            [len(grid), q, channels], of the functions of group index[k] at t = grid * step[k]. It must use the
            steps that it is given: they are not powers of two times the first step, though they have few bits.
        groups: How many groups there are. The channels of a group are sampled together.
        step: The first step, roughly; a scalar or one per group. Functions are expected to vary over t of about 1.
        eps: Spacing of the dtype in which the samples are computed, relative.
        target: Error wanted, absolute; broadcast to [groups, channels].
        argument_noise: Noise of the function caused by the rounding of its argument; broadcast likewise.
        rounds: At most so many calls of `sample` for each grid.
        loudest: The most that rounding inside of a function can do to it, where that is known; broadcast likewise. What
            is louder is a feature too fine for the step, and no noise, be the function constant at small steps or not.
        begin: Where to sample first: `NINE`, or `SEVEN`, which are made nine where they do not tell enough.
    """
    steps = np.full(groups, np.asarray(step, np.float64) * DETUNED)
    first = np.asarray(sample(np.arange(groups), steps, begin), np.float64)
    shape = groups, first.shape[2]
    limits = np.broadcast_to(np.asarray(target, np.float64), shape).reshape(-1)
    limits = np.maximum(limits, _NEGLIGIBLE * smallest_normal(eps))
    roughness = np.broadcast_to(np.asarray(argument_noise, np.float64), shape).reshape(-1)
    limit = np.broadcast_to(np.asarray(loudest, np.float64), shape).reshape(-1)
    first_steps = np.repeat(steps, shape[1])
    results, satisfied = _look_once(first.reshape(len(begin), -1), first_steps, begin, eps, limits, roughness)
    evaluations = len(begin) * groups

    def search(rest: Integers, grid: tuple[int, ...]) -> Search:
        group, channel = np.divmod(rest, shape[1])
        return Search(
            group=group,
            channel=channel,
            target=limits[rest],
            argument_noise=roughness[rest],
            eps=eps,
            grid=grid,
            loudest=limit[rest],
        )

    rest = np.flatnonzero(~satisfied & np.isfinite(results.base))
    results.points[rest] = len(NINE)
    if rest.size:
        open_ones = np.unique(rest // shape[1])
        flat = _nine(sample, open_ones, steps, begin, first).reshape(len(NINE), -1)
        evaluations += (len(NINE) - len(begin)) * open_ones.size
        centre = search(rest, NINE)
        for part in _chunks(rest.size):
            centre.offer(np.arange(rest.size)[part], flat[:, rest[part]], first_steps[rest[part]])
        centre.want[:] = first_steps[rest]
        centre.plan()
        evaluations += _refine(sample, centre, rounds - 1)
        _write_centre(results, rest, centre)
        unknown = ~np.isfinite(centre.best.error)
        for grid, finite in ((RIGHT, centre.right_finite), (LEFT, centre.left_finite & ~centre.right_finite)):
            edge = rest[unknown & finite]
            if edge.size:
                side = search(edge, grid)
                side.want[:] = first_steps[edge]
                evaluations += _refine(sample, side, rounds)
                _write_edge(results, edge, side)
    arrays = {name: getattr(results, name).reshape(shape) for name in _Results.__dataclass_fields__}
    return Derivatives(**arrays, evaluations=evaluations)


def _chunks(size: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, size, _CHUNK))


def _nine(sample: Sample, groups: Integers, steps: Floats, begin: tuple[int, ...], first: Floats) -> Floats:
    """Nine samples of some groups, by those that there are; of the others what is missing is zero."""
    if begin == NINE:
        return first
    samples = np.zeros((len(NINE), *first.shape[1:]))
    samples[np.isin(NINE, begin)] = first
    outer = tuple(g for g in NINE if g not in begin)
    samples[np.ix_(~np.isin(NINE, begin), groups)] = sample(groups, steps[groups], outer)
    return samples


def _look_once(
    flat: Floats, steps: Floats, grid: tuple[int, ...], eps: float, limits: Floats, roughness: Floats
) -> tuple[_Results, Bools]:
    """Estimates from the first window, and which of them are good enough."""
    size = steps.size
    value, error, noise, order = np.empty(size), np.empty(size), np.empty(size), np.empty(size, np.int64)
    satisfied = np.empty(size, np.bool_)
    unknown = np.zeros(1)
    with np.errstate(all="ignore"):
        for part in _chunks(size):
            found = estimate(flat[:, part], steps[part], grid, eps=eps, argument_noise=roughness[part], grain=unknown)
            value[part], error[part], noise[part], order[part] = found.value, found.error, found.noise, found.order
            satisfied[part] = found.finite & (found.error <= limits[part]) & (steps[part] <= TRUSTED_STEP)
    base = flat[grid.index(0)]
    lost = ~np.isfinite(base)
    value[lost], error[lost], order[lost] = 0.0, np.inf, 0
    results = _Results(
        value=value,
        error=error,
        noise=noise,
        step=steps.copy(),
        order=order,
        points=np.full(size, len(grid)),
        kink=np.zeros(size, np.bool_),
        jump=np.zeros(size, np.bool_),
        left=value.copy(),
        right=value.copy(),
        left_error=error.copy(),
        right_error=error.copy(),
        nonfinite=lost,
        base=base.copy(),
    )
    return results, satisfied


def _refine(sample: Sample, found: Search, rounds: int) -> int:
    """Sample where the search wants to, round by round; gives the number of evaluations."""
    evaluations = 0
    for _ in range(rounds):
        wanting = np.flatnonzero(found.want)
        if not wanting.size:
            break
        pairs = np.unique(np.stack([found.group[wanting], -found.want[wanting]]), axis=1)
        index, steps = pairs[0].astype(np.int64), -pairs[1]
        samples = np.asarray(sample(index, steps, found.grid), np.float64)
        evaluations += len(found.grid) * index.size
        _share(found, wanting, index, steps, samples)
        found.plan()
    return evaluations


def _share(found: Search, wanting: Integers, index: Integers, steps: Floats, samples: Floats) -> None:
    """Offer the samples of a group to every open problem of it, the widest first."""
    first = np.searchsorted(index, found.group[wanting], side="left")
    count = np.searchsorted(index, found.group[wanting], side="right") - first
    for rank in range(int(count.max())):
        takers = np.flatnonzero(count > rank)
        for part in _chunks(takers.size):
            problem, query = wanting[takers[part]], first[takers[part]] + rank
            found.offer(problem, samples[:, query, found.channel[problem]], steps[query])


def _write_centre(results: _Results, rest: Integers, found: Search) -> None:
    best, left, right = found.best, found.left, found.right
    with np.errstate(invalid="ignore"):
        gap = np.abs(right.value - left.value)
        reach = left.error + right.error
        kink = found.kink & (found.jump | found.vertical | (gap > reach))
        harsh = kink & (found.jump | found.vertical)
        results.value[rest] = np.where(kink, 0.5 * left.value + 0.5 * right.value, best.value)
        results.error[rest] = np.where(harsh, np.inf, np.where(kink, 0.5 * gap + reach, best.error))
    results.noise[rest], results.order[rest] = best.noise, best.order
    known = np.isfinite(best.error)
    results.step[rest] = np.where(known, best.step, results.step[rest])
    results.kink[rest], results.jump[rest] = kink, kink & found.jump
    results.nonfinite[rest] = ~known
    results.left[rest], results.right[rest] = (np.where(kink, side.value, best.value) for side in (left, right))
    results.left_error[rest], results.right_error[rest] = (
        np.where(kink, np.where(found.vertical, np.inf, side.error), best.error) for side in (left, right)
    )


def _write_edge(results: _Results, edge: Integers, found: Search) -> None:
    best = found.best
    known = np.isfinite(best.error)
    vertical = found.kink & found.vertical
    to = edge[known]
    error = np.where(vertical, np.inf, best.error)[known]
    results.value[to] = results.left[to] = results.right[to] = best.value[known]
    results.noise[to], results.order[to], results.step[to] = best.noise[known], best.order[known], best.step[known]
    results.kink[to] = vertical[known]
    results.nonfinite[to] = False
    to_right = found.grid == RIGHT
    results.error[to] = error
    results.right_error[to], results.left_error[to] = (error, np.inf) if to_right else (np.inf, error)
