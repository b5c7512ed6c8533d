"""What a check keeps to be drawn: errors of the entries of a matrix, and Taylor remainders."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from gradcheck._check import entries as entrywise
from gradcheck._check.entries import Integers
from gradcheck._check.judge import Comparison
from gradcheck._check.work import Work
from gradcheck._derivatives.point import Reals
from gradcheck._graph.evaluate import RUN_ERRORS
from gradcheck._numerics.directions import rademacher
from gradcheck._report.gradient import gravity
from gradcheck._results import ErrorMap, Finding, Taylor, Verdict

_CELLS = 48  # of a map along either side; more would fill JSON documents and not be told apart
_STEPS: Reals = 2.0 ** -np.arange(2.0, 18.0, 2.0)  # in units of the scales
_STEPS_OF_LARGE: Reals = 2.0 ** -np.array([3.0, 7.0, 11.0])  # where each evaluation costs much


def with_map(found: Finding, work: Work, x: int, entries: Integers, comparison: Comparison) -> Finding:
    """A finding with the map of all entries of its x that were compared.

    Args:
        found: The finding.
        work: The check.
        x: The source.
        entries: Which of its reals were compared, [k]; one may be there several times, for several outputs.
        comparison: The comparisons, shape [1, k].
    """
    source = work.traced.sources[x]
    if len(source.shape) < 2 or not all(source.shape):
        return found
    each = np.zeros(int(np.prod(source.shape)))
    np.maximum.at(each, entries // (2 if source.dtype.is_complex else 1), comparison.excess[0])
    return replace(found, map=error_map(each.reshape(-1, source.shape[-1])))


def error_map(excess: Reals) -> ErrorMap:
    """The map of a matrix of differences in units of what is allowed, [rows, columns]; large ones in blocks."""
    rows, columns = excess.shape
    block = -(-rows // _CELLS), -(-columns // _CELLS)
    padded = np.pad(excess, [(0, -rows % block[0]), (0, -columns % block[1])])
    high, wide = padded.shape[0] // block[0], padded.shape[1] // block[1]
    cells = padded.reshape(high, block[0], wide, block[1]).max(axis=(1, 3))
    at = np.unravel_index(int(np.argmax(cells)), cells.shape)
    return ErrorMap(
        rows=rows,
        columns=columns,
        block=block,
        cells=tuple(tuple(float(f"{cell:.3g}") for cell in row) for row in cells),
        worst=(int(at[0]), int(at[1])),
    )


def remainders(work: Work, findings: Mapping[tuple[int, int], Finding]) -> Taylor | None:
    """Taylor remainders for the worst finding, along one direction, with the first cotangent; None without any.

    Nor are there any of large inputs of which all is well: they would cost a good part of the check.
    """
    pairs = [
        (a, x)
        for (a, x), found in findings.items()
        if found.verdict not in (Verdict.NONFINITE, Verdict.NONDETERMINISTIC) and work.mover_of(x) is not None
    ]
    if not pairs or not work.cotangents:
        return None
    a, x = min(pairs, key=lambda pair: gravity(findings[pair]))
    mover, place = entrywise.located(work, x)
    if mover.large and findings[a, x].ok:
        return None
    steps = _STEPS_OF_LARGE if mover.large else _STEPS
    # Random numbers of its own, so that drawing a picture changes nothing of the check.
    direction = rademacher(np.random.default_rng([work.options.seed, x]), mover.base[place].size) * mover.scales[place]
    along: list[Reals | None] = [direction if k == place else None for k in range(len(mover.base))]
    try:
        if mover.large:
            moved = mover.along(along, steps)
        else:
            moved = mover.at([None if d is None else steps[:, None] * d for d in along])
    except RUN_ERRORS:
        return None
    change = moved @ work.full_weights(a)[0]
    left = change - steps * float(entrywise.gradient_of(work, a, x)[0] @ direction)
    return Taylor(
        y=findings[a, x].y, x=findings[a, x].x, steps=tuple(map(float, steps)),
        change=_sizes(change), remainder=_sizes(left),
    )  # fmt: skip


def _sizes(values: Reals) -> tuple[float, ...]:
    # One object for all NaNs: tuples that hold it are equal.
    return tuple(math.nan if math.isnan(v) else abs(float(v)) for v in values)
