"""Many entries from few directions: entries that share no output are moved together.

Curtis, Powell and Reid, On the estimation of sparse Jacobian matrices, IMA J. Appl. Math. 13 (1974), 117-119. Which
outputs an entry reaches is found by moving whole slices of the input along each of its axes and looking at which
outputs change at all. That is evidence, not proof, so a disagreement found this way is looked at again entry by entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcheck._derivatives.numeric import Mover
from gradcheck._derivatives.point import Reals
from gradcheck._graph.evaluate import RUN_ERRORS
from gradcheck._numerics.directions import axis_colours, combine_colours
from gradcheck._numerics.intervals import Derivatives

Integers = NDArray[np.int64]
_PROBES = 4096  # slices moved at most
_TABLE = 2**26  # entries x outputs that a table of supports may have
_REACH = (0.5, -0.25)  # how far slices are moved, in units of the input's scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which entries of one x move together.

    Attributes:
        x: Position among the mover's sources.
        colours: Group of every entry, [n].
        groups: How many groups there are.
        entry: For every group and output real, the entry that reaches it, or -1; None where each group is one entry.
    """

    x: int
    colours: Integers
    groups: int
    entry: Integers | None


def single_entries(mover: Mover, x: int) -> Plan:
    """The plan that moves every entry alone."""
    n = mover.base[x].size
    return Plan(x=x, colours=np.arange(n), groups=n, entry=None)


def plan(mover: Mover, x: int, rng: np.random.Generator) -> Plan:
    """Find entries of one x that can move together."""
    n, m = mover.base[x].size, mover.outputs.size
    shape = _shape(mover, x)
    if n < 2 or m < 2 or sum(shape) > min(_PROBES, 4 * n) or n * m > _TABLE or not np.all(np.isfinite(mover.outputs)):
        return single_entries(mover, x)
    moved = _moved(mover, x, shape, rng)
    colours, groups = combine_colours([axis_colours(rows) for rows in moved], shape)
    flat = colours.reshape(-1)
    if 2 * groups > n:
        return single_entries(mover, x)
    support = np.ones((*shape, m), bool)
    for axis, rows in enumerate(moved):
        support &= rows.reshape(*(len(rows) if a == axis else 1 for a in range(len(shape))), m)
    entries, outputs = np.nonzero(support.reshape(n, m))
    entry = np.full((groups, m), -1)
    entry[flat[entries], outputs] = entries
    return Plan(x=x, colours=flat, groups=groups, entry=entry)


def _shape(mover: Mover, x: int) -> tuple[int, ...]:
    source = mover.point.traced.sources[mover.xs[x]]
    return (*source.shape, 2) if source.dtype.is_complex else source.shape


def _moved(mover: Mover, x: int, shape: tuple[int, ...], rng: np.random.Generator) -> list[NDArray[np.bool_]]:
    """For each axis, which outputs change when a slice across that axis moves: [d, m] each."""
    n, m = mover.base[x].size, mover.outputs.size
    amounts = mover.scales[x] * rng.uniform(0.5, 1.0, n) * rng.choice([-1.0, 1.0], n)
    index = np.arange(n).reshape(shape)
    found = []
    piece = max(1, 2**24 // max(1, n + m))
    for axis, length in enumerate(shape):
        where = np.moveaxis(index, axis, 0).reshape(length, -1)
        rows = np.zeros((length, m), bool)
        for first in range(0, length, piece):
            some = where[first : first + piece]
            move = np.zeros((len(some), n))
            np.put_along_axis(move, some, amounts[some], axis=1)
            try:
                samples = _at(mover, x, np.concatenate([r * move for r in _REACH]))
            except (
                RUN_ERRORS
            ):  # far from here the function refuses, or has other shapes: that says nothing of this point
                samples = np.ones((len(_REACH) * len(some), m))
            rows[first : first + piece] = ((samples != 0) | np.isnan(samples)).reshape(len(_REACH), len(some), m).any(0)
        found.append(rows)
    return found


def _at(mover: Mover, x: int, move: Reals) -> Reals:
    return mover.at([move if k == x else None for k in range(len(mover.base))])


def entry_directions(mover: Mover, plan: Plan, groups: Integers, signs: Reals) -> list[Reals | None]:
    """Directions of groups [q]: the group's entries, each by its sign and scale."""
    direction = np.where(plan.colours[None, :] == groups[:, None], signs * mover.scales[plan.x], 0.0)
    return [direction if k == plan.x else None for k in range(len(mover.base))]


def elementwise(
    mover: Mover, plan: Plan, weights: Reals, signs: Reals, *, target: Reals, argument_noise: Reals
) -> Derivatives:  # fmt: skip
    """Derivatives of the weighted sum of outputs with respect to every entry of one x, shape [1, n].

    Values are in units of the entry's scale. `weights` [m] is the cotangent; `target` and `argument_noise` are [n].
    """
    n = mover.base[plan.x].size
    if plan.entry is None:
        found = mover.derivatives(
            lambda groups: entry_directions(mover, plan, groups, signs),
            plan.groups,
            reduce=lambda samples, _: (samples @ weights)[:, :, None],
            target=target[:, None],
            argument_noise=argument_noise[:, None],
        )
        return _spread(found, np.zeros(n, np.int64), np.arange(n), np.arange(n), signs, n)
    segments = [_segments(row) for row in plan.entry]
    width = max(1, *(len(entries) for entries, _, _ in segments))

    def reduce(samples: Reals, groups: Integers) -> Reals:
        result = np.zeros((*samples.shape[:2], width))
        for q, g in enumerate(groups):
            entries, outputs, starts = segments[g]
            if len(entries):
                result[:, q, : len(entries)] = np.add.reduceat(
                    samples[:, q][:, outputs] * weights[outputs], starts, axis=1
                )
        return result

    limits, noises = np.full((plan.groups, width), np.inf), np.zeros((plan.groups, width))
    group, channel, entry = [], [], []
    for g, (entries, _, _) in enumerate(segments):
        limits[g, : len(entries)], noises[g, : len(entries)] = target[entries], argument_noise[entries]
        group.append(np.full(len(entries), g))
        channel.append(np.arange(len(entries)))
        entry.append(entries)
    found = mover.derivatives(
        lambda groups: entry_directions(mover, plan, groups, signs), plan.groups, reduce=reduce, target=limits,
        argument_noise=noises,
    )  # fmt: skip
    # What reaches no output at all may still be absorbed by rounding.
    absorbed = mover.eps * float(np.abs(weights * mover.outputs).sum())
    return _spread(found, np.concatenate(channel), np.concatenate(entry), np.concatenate(group), signs, n, absorbed)


def _segments(row: Integers) -> tuple[Integers, Integers, Integers]:
    """Entries of a group, the outputs sorted by entry, and where each entry's outputs begin."""
    outputs = np.flatnonzero(row >= 0)
    outputs = outputs[np.argsort(row[outputs], kind="stable")]
    entries, starts = np.unique(row[outputs], return_index=True)
    return entries, outputs, starts


def _spread(
    found: Derivatives, channel: Integers, entry: Integers, group: Integers, signs: Reals, n: int,
    absorbed: float = 0.0,
) -> Derivatives:  # fmt: skip
    """Measured derivatives at their entries, [1, n]; one that reaches no output is 0 ± `absorbed`."""

    whole = len(entry) == n == found.value.size and np.array_equal(entry, np.arange(n))

    def place(values: NDArray[Any], fill: float) -> NDArray[Any]:
        if whole:  # everything that was measured, in its order: `group` and `channel` count through it
            return values.reshape(1, n)
        result = np.full((1, n), fill, dtype=values.dtype)
        result[0, entry] = values[group, channel]
        return result

    sign = signs[None, :]
    left, right = place(found.left, 0.0) * sign, place(found.right, 0.0) * sign
    left_error, right_error = place(found.left_error, 0.0), place(found.right_error, 0.0)
    backward = sign < 0
    return Derivatives(
        value=place(found.value, 0.0) * sign,
        error=place(found.error, absorbed),
        noise=place(found.noise, 0.0),
        step=place(found.step, 0.0),
        order=place(found.order, 8),
        points=place(found.points, 9),
        kink=place(found.kink, False),
        jump=place(found.jump, False),
        left=np.where(backward, right, left),
        right=np.where(backward, left, right),
        left_error=np.where(backward, right_error, left_error),
        right_error=np.where(backward, left_error, right_error),
        nonfinite=place(found.nonfinite, False),
        base=place(found.base, 0.0),
        evaluations=found.evaluations,
    )


def pairs(mover: Mover, plan: Plan) -> tuple[Integers, Integers, Integers]:
    """Group, output and entry of every pair of output and entry that a plan measures, [k] each."""
    if plan.entry is None:
        group, output = np.indices((plan.groups, mover.outputs.size)).reshape(2, -1)
        return group, output, group
    group, output = np.nonzero(plan.entry >= 0)
    return group, output, plan.entry[group, output]


def jacobian(
    mover: Mover, plan: Plan, signs: Reals, measured: tuple[Integers, Integers, Integers], *, target: Reals,
    argument_noise: Reals,
) -> Derivatives:  # fmt: skip
    """Every output differentiated with respect to every entry of one x that reaches it.

    Args:
        mover: What moves.
        plan: Which entries move together.
        signs: Per entry, the sign of its move.
        measured: The `pairs` of the plan.
        target: Absolute error wanted per pair, [k], in units of the entry's scale; inf where the pair does not matter.
        argument_noise: Per output, noise that its samples need not show, [m].

    Returns:
        Derivatives of shape [1, k], in units of the entry's scale.
    """
    group, output, entry = measured
    limits = np.full((plan.groups, mover.outputs.size), np.inf)
    limits[group, output] = target
    found = mover.derivatives(
        lambda groups: entry_directions(mover, plan, groups, signs),
        plan.groups,
        reduce=lambda samples, _: samples,
        target=limits,
        argument_noise=argument_noise[None, :],
    )
    k = len(output)
    return _spread(found, output, np.arange(k), group, signs[entry], k)


def some_entries(
    mover: Mover,
    x: int,
    entries: Sequence[int] | Integers,
    weights: Reals,
    *,
    target: Reals,
    floor: Reals,
    swing: Any,
    step: Any,
) -> tuple[Derivatives, Reals]:
    """Derivatives of the weighted sums of outputs with respect to single entries, each moved alone, [entries, w].

    Args:
        mover: What moves.
        x: Position among the mover's sources.
        entries: Which entries.
        weights: Of the sums, [m, w].
        target: Absolute error wanted, [entries, w], in units of the entry's scale.
        floor: Noise that its samples need not show, besides the rounding that is heard inside the function; likewise.
        swing: How far the sums move with the whole source, [w].
        step: The first step, of all entries or per entry.

    Returns:
        The derivatives, and the size of the numbers whose rounding is heard inside the function, likewise.
    """
    chosen = np.asarray(entries, np.int64)

    def directions(groups: Integers) -> list[Reals | None]:
        move = np.zeros((len(groups), mover.base[x].size))
        columns = chosen[groups]
        move[np.arange(len(groups)), columns] = mover.scales[x][columns]
        return [move if k == x else None for k in range(len(mover.base))]

    def reduce(samples: Reals, _: Integers) -> Reals:
        return samples @ weights

    heard = mover.rounding_noise(directions, len(chosen), reduce=reduce)
    found = mover.derivatives(
        directions,
        len(chosen),
        reduce=reduce,
        target=target,
        argument_noise=np.maximum(floor, heard),
        step=step,
        grain=mover.eps * swing,
    )
    return found, heard / (0.5 * mover.eps)
