"""The whole Jacobian, analytic beside numeric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradcheck._check import entries
from gradcheck._check.entries import Integers, located
from gradcheck._check.findings import from_comparison
from gradcheck._check.judge import (
    Comparison,
    Outcome,
    compare,
    constant_factor,
    forgive,
    is_open,
    kinks_by_faintness,
    needs_a_second_look,
    worthwhile,
)
from gradcheck._check.naming import conclude
from gradcheck._check.pictures import with_map
from gradcheck._check.scatter import both_off
from gradcheck._check.work import Work
from gradcheck._derivatives.analytic import analytic
from gradcheck._derivatives.compressed import jacobian, pairs, some_entries
from gradcheck._derivatives.numeric import Mover
from gradcheck._derivatives.point import Reals
from gradcheck._numerics.directions import rademacher
from gradcheck._numerics.intervals import Derivatives
from gradcheck._results import Finding

_ROWS = 4096  # rows of the analytic Jacobian computed in one call
_ALONE = 256  # suspicious columns that are measured each alone


def analytic_rows(work: Work, a: int, *, wide: bool = True) -> list[Reals | None]:
    """The analytic Jacobian of one output with respect to every x, [m, n] each, from one gradient per row."""
    m = work.values[a].size
    parts = [
        [g.value for g in analytic(work.point, a, np.eye(min(_ROWS, m - k), m, k), work.shapes[a], wide=wide)]
        for k in range(0, m, _ROWS)
    ]
    if not parts:
        return [None] * len(work.traced.sources)
    if len(parts) == 1:  # no copy of what may be the largest array of all
        return parts[0]
    return [
        None if column[0] is None else np.concatenate([c for c in column if c is not None])
        for column in zip(*parts, strict=True)
    ]


def row_reach(work: Work, matrices: Sequence[Reals | None]) -> Reals:
    """Per output real, the Euclidean size of all x_i J_i: see `Work.reach`."""
    total = np.zeros(next((len(rows) for rows in matrices if rows is not None), 0))
    for x, rows in enumerate(matrices):
        found = work.mover_of(x)
        if rows is not None and found is not None:
            total += np.einsum("ij,ij,j->i", rows, rows, np.square(found[0].base[found[1]]))
    return np.sqrt(total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Entries of a Jacobian that were measured; the others are zero, for no output moved there.

    Attributes:
        rows, columns: Their positions, [k].
        numeric: Their derivatives, [1, k], in units of the scale of the entry of x.
        noise: Per row, the noise that was assumed, [m].
    """

    rows: Integers
    columns: Integers
    numeric: Derivatives
    noise: Reals


def measure(work: Work, a: int, x: int, matrix: Reals, reach: Reals) -> Measured:
    """Measure one output with respect to every entry of one x.

    Args:
        work: The check.
        a: The output.
        x: The source.
        matrix: Its analytic Jacobian, [m, n]; it sets how precise to be.
        reach: Of `row_reach`.
    """
    mover, place = located(work, x)
    first, last = work.span(a)
    scheme = work.plan(mover, place)
    noise = np.zeros(mover.outputs.size)
    noise[first:last] = 0.5 * mover.eps * (np.abs(mover.outputs[first:last]) + reach)
    group, output, entry = pairs(mover, scheme)
    inside = np.flatnonzero((output >= first) & (output < last))
    if len(inside) < len(output):
        group, output, entry = group[inside], output[inside], entry[inside]
    own = np.abs(matrix[output - first, entry]) * mover.scales[place][entry]
    target = _target(own, noise[output], mover.eps, last - first)
    signs = rademacher(work.rng, mover.base[place].size)
    numeric = jacobian(mover, scheme, signs, (group, output, entry), target=target, argument_noise=noise)
    return Measured(rows=output - first, columns=entry, numeric=numeric, noise=noise[first:last])


def _target(own: Reals, noise: Reals, eps: float, outputs: int) -> Reals:
    """Errors worth striving for; those far below the typical derivative need not be a small part of a tiny one.

    Of a single output every entry is looked at with all that float64 gives; among many that would cost too much.
    """
    small = 2e-5 if eps > 1e-9 else 1e-12 if outputs == 1 else 1e-9
    target: Reals = np.maximum(worthwhile(own, noise, eps, coarsest=1e-9), small * entries.rms(own))
    return target


def check_jacobian(work: Work, a: int, x: int, matrix: Reals | None, reach: Reals) -> Finding:
    """The finding on one pair from its whole Jacobian."""
    mover, place = located(work, x)
    first, last = work.span(a)
    if matrix is None:
        matrix = np.zeros((last - first, mover.base[place].size))
    found = measure(work, a, x, matrix, reach)
    own = matrix[found.rows, found.columns] * mover.scales[place][found.columns]
    comparison = compare(
        own[None], found.numeric, np.abs(own)[None], work.options, dtype=work.dtype(x), eps=work.gradient_eps,
        magnitude=np.abs(mover.outputs[first + found.rows])[None], typical=entries.rms(own), coarse=work.coarse(x),
    )  # fmt: skip
    leaked = _leaks(matrix, mover, place, mover.outputs[first:last], found)
    suspects = np.flatnonzero(needs_a_second_look(comparison)[0])
    suspects = suspects[np.argsort(-comparison.outcome[0][suspects], kind="stable")]
    kinks = kinks_by_faintness(comparison)
    if kinks.size:
        row, column = found.rows[kinks[0]], found.columns[kinks[:1]]
        if _alone(work, a, x, matrix, column, found.noise).outcome[0, row] != Outcome.KINK_WITHIN:
            suspects = np.concatenate([suspects, kinks])
    if suspects.size or leaked.size:
        bad = np.unique(np.concatenate([leaked, found.columns[suspects]])[:_ALONE])
        return _columns_alone(work, a, x, matrix, bad, comparison, found)
    return _conclude(work, a, x, comparison, found.rows, found.columns)


def _leaks(matrix: Reals, mover: Mover, place: int, values: Reals, found: Measured) -> Integers:
    """Columns with analytic entries where no output moved, larger than what rounding could have hidden."""
    if np.count_nonzero(matrix) == np.count_nonzero(matrix[found.rows, found.columns]):
        return np.zeros(0, np.int64)
    large = np.abs(matrix) * mover.scales[place] > 64 * mover.eps * np.abs(values)[:, None]
    large[found.rows, found.columns] = False
    return np.flatnonzero(large.any(axis=0))


def _columns_alone(
    work: Work, a: int, x: int, matrix: Reals, columns: Integers, comparison: Comparison, found: Measured
) -> Finding:
    """Measure suspicious columns each alone, over all outputs, before anything is said of them."""
    alone = _alone(work, a, x, matrix, columns, found.noise)
    m = alone.outcome.shape[1]
    keep = ~np.isin(found.columns, columns)
    joined = Comparison(
        **{
            n: np.concatenate([getattr(comparison, n)[:, keep], getattr(alone, n).reshape(1, -1)], axis=1)
            for n in Comparison.__slots__
        }
    )
    every = np.concatenate([found.rows[keep], np.tile(np.arange(m), len(columns))])
    return _conclude(work, a, x, joined, every, np.concatenate([found.columns[keep], np.repeat(columns, m)]))


def _alone(work: Work, a: int, x: int, matrix: Reals, columns: Integers, noise: Reals) -> Comparison:
    """Compare some columns, each moved alone, [columns, m]."""
    mover, place = located(work, x)
    first, last = work.span(a)
    m = last - first
    weights = np.zeros((mover.outputs.size, m))
    weights[np.arange(first, last), np.arange(m)] = 1.0
    own = matrix[:, columns].T * mover.scales[place][columns, None]
    magnitude = np.abs(mover.outputs[first:last])[None]
    target = 0.01 * _target(np.abs(own), noise[None], mover.eps, m)
    swing = mover.swing(place)[first:last]
    slopes = np.zeros((len(columns), mover.outputs.size))
    slopes[:, first:last] = own
    numeric, inside = some_entries(
        mover,
        place,
        columns,
        weights,
        target=target,
        floor=0.5 * mover.eps * magnitude,
        swing=swing,
        step=mover.witness_step(place, slopes),
    )
    magnitude, typical = np.maximum(magnitude, swing[None]), entries.rms(matrix * mover.scales[place])
    alone = compare(
        own, numeric, np.abs(own), work.options, dtype=work.dtype(x), eps=work.gradient_eps, magnitude=magnitude,
        typical=typical, coarse=work.coarse(x), hidden=16 * mover.eps * swing[None],
    )  # fmt: skip
    rows = np.flatnonzero(is_open(alone).any(axis=0))[:_ALONE]
    rounded = both_off(work, a, np.eye(m)[rows])[x] if rows.size else None
    if rounded is not None:
        spread, beside = np.zeros(own.shape), np.full(own.shape, np.nan)
        scales = mover.scales[place][columns, None]
        spread[:, rows], beside[:, rows] = (part[:, columns].T * scales for part in (rounded.off, rounded.beside))
        alone = forgive(
            alone, spread, work.options, dtype=work.dtype(x), eps=work.gradient_eps,
            magnitude=np.maximum(magnitude, typical), inside=inside, beside=beside,
        )  # fmt: skip
    return alone


def _conclude(work: Work, a: int, x: int, comparison: Comparison, rows: Integers, columns: Integers) -> Finding:
    mover, place = located(work, x)
    if not comparison.outcome.size:
        return conclude(work, a, x, 0, entries.compare_some(work, a, x, 0, np.arange(min(1, mover.base[place].size))))
    at = comparison.worst()
    apart = comparison.outcome[0] == Outcome.APART
    entry = int(columns[at[1]])
    found = from_comparison(
        work, a, x, comparison, at, entry=entry, unit=float(mover.scales[place][entry]), y_entry=int(rows[at[1]]),
        wrong=len(np.unique(columns[apart])),
        hint=constant_factor(comparison.columns(apart), single=work.values[a].size * mover.base[place].size == 1),
    )  # fmt: skip
    return with_map(found, work, x, columns, comparison)
