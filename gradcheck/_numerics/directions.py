"""Directions to move in: random signs, halves of an index set, entries that may move together, steps per entry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_MOST_PAIRS = 2**26  # entries of a dependence matrix worth looking through
_MOST_ROWS = 4096
BLOCK = 2**15  # numbers that stay in the processor's cache
_FACTORS = 256  # of at least 0.5: their product is no less than the least normal number
_LEAST = -5000  # an exponent below all


def rademacher(rng: np.random.Generator, shape: int | Sequence[int]) -> Floats:
    """Independent random signs, +1.0 or -1.0."""
    signs: Floats = 2.0 * rng.integers(0, 2, shape).astype(np.float64) - 1.0
    return signs


def eighths(rng: np.random.Generator, shape: int | Sequence[int]) -> npt.NDArray[np.int8]:
    """Independent random numbers among 4, 5, 6 and 7 of either sign; small, for directions in millions of entries."""
    drawn = rng.integers(0, 8, shape, np.int8)
    drawn -= (drawn < 4).view(np.int8) * np.int8(7)  # those below are -7 to -4 then
    return drawn


def halves(indices: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """The first and the second half of an index set; the first is the longer one by at most one."""
    middle = (len(indices) + 1) // 2
    return indices[:middle], indices[middle:]


def axis_colours(depends: npt.NDArray[np.bool_]) -> Integers:
    """Colours such that two indices of one colour touch no common output.

    Greedy, in order of index. Where a colouring cannot help (one index conflicts with all others) or would cost too
    much to find, every index has a colour of its own.

    Args:
        depends: Whether output j is touched by index i, shape [d, m].

    Returns:
        Colour of each index, shape [d], numbered from 0 without gaps.
    """
    size, outputs = depends.shape
    own = np.arange(size, dtype=np.int64)
    if size * outputs > _MOST_PAIRS or size > _MOST_ROWS:
        return own
    if not outputs or depends.sum(axis=0).max() <= 1:
        return np.zeros(size, np.int64)
    rows = depends.astype(np.float32)
    conflicts = (rows @ rows.T) > 0
    np.fill_diagonal(conflicts, val=True)
    if conflicts.all(axis=1).any():
        return own
    return _greedy(conflicts)


def _greedy(conflicts: npt.NDArray[np.bool_]) -> Integers:
    colours = np.full(len(conflicts), -1, np.int64)
    for index, row in enumerate(conflicts):
        taken = np.zeros(index + 2, np.bool_)
        taken[colours[:index][row[:index]]] = True
        colours[index] = taken.argmin()
    return colours


def combine_colours(per_axis: Sequence[Integers], shape: Sequence[int]) -> tuple[Integers, int]:
    """Colours of the entries of an array from the colours of its axes.

    Entries share a colour where their indices share one along every axis. If outputs depend on the entry (i, j, ...)
    only where each axis says so, entries of one colour touch no common output as long as each axis is either equal
    or rightly coloured.

    Args:
        per_axis: Colours of the indices along each axis, shape [shape[k]] for axis k.
        shape: Shape of the array.

    Returns:
        Colour of each entry, of the given shape, numbered from 0 without gaps; and how many colours there are.
    """
    combined = np.zeros((1,) * len(shape), np.int64)
    count = 1
    for axis, colours in enumerate(per_axis):
        used, dense = np.unique(colours, return_inverse=True)
        along = [1] * len(shape)
        along[axis] = -1
        # Every pair of colours of two axes occurs: numbers without gaps give numbers without gaps.
        combined = combined * len(used) + dense.reshape(along)
        count *= len(used)
    return np.broadcast_to(combined, tuple(shape)).astype(np.int64), count


def power_of_two_scale(x: npt.NDArray[np.floating]) -> Floats:
    """A step scale for each entry: its magnitude or, if larger, the typical one, rounded to a power of two.

    Typical is the geometric mean of the magnitudes that are neither zero nor infinite nor NaN; 1 if there are none.
    Powers of two keep steps exact.
    """
    values = np.asarray(x, np.float64).reshape(-1)
    exponents = np.empty(values.size, np.int64)
    count, logarithms = 0, 0.0
    for part in blocks(values.size):
        mantissas, powers = np.frexp(np.abs(values[part]))
        usable = np.isfinite(mantissas) & (mantissas > 0)
        exponents[part] = np.where(usable, powers - (mantissas < np.sqrt(0.5)), _LEAST)
        mantissas[~usable] = 1.0
        powers[~usable] = 0
        count += int(usable.sum())
        logarithms += float(powers.sum()) + float(np.log2(_products(mantissas)).sum())
    bounds = np.finfo(np.float64)
    typical = int(np.rint(logarithms / count)) if count else 0
    np.clip(exponents, max(typical, bounds.minexp), bounds.maxexp - 1, out=exponents)
    scales: Floats = ((exponents + (bounds.maxexp - 1)) << bounds.nmant).view(np.float64)
    return scales.reshape(np.shape(x))


def _products(mantissas: Floats) -> Floats:
    """Products of some hundred numbers of [0.5, 1] each: one logarithm then does for all of them."""
    whole = mantissas.size // _FACTORS * _FACTORS
    return np.append(mantissas[:whole].reshape(-1, _FACTORS).prod(axis=1), mantissas[whole:])


def blocks(size: int) -> Iterator[slice]:
    """Parts of a long array that stay in the processor's cache while something is done with them."""
    return (slice(first, first + BLOCK) for first in range(0, size, BLOCK))
