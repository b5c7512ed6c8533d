"""Wrong entries, named: one by one where that is affordable, by halving where it is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradcheck._check.judge import Comparison, Outcome, compare, forgive, is_open, needs_a_second_look, worthwhile
from gradcheck._check.scatter import both_off
from gradcheck._check.work import Work, eps_of
from gradcheck._derivatives.compressed import Plan, elementwise, some_entries
from gradcheck._derivatives.numeric import Mover
from gradcheck._derivatives.point import Reals
from gradcheck._numerics.directions import blocks, rademacher

Integers = NDArray[np.int64]
_FRONTIER = 32  # suspicious subsets that are halved at a time,
_FRONTIER_OF_LARGE, _LARGE = 4, 2**16  # and of so large an x, where each costs much


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """Entries of one x that came out other than right.

    Attributes:
        entries: Positions among its reals.
        comparison: Of those entries, shape [1, entries].
        more: Whether the search stopped before all were found.
    """

    entries: Integers
    comparison: Comparison
    more: bool = False


def rms(values: Reals) -> float:
    """The root of the mean square; 0 of nothing."""
    flat = values.reshape(-1)
    return float(np.sqrt(sum(np.square(flat[part]).sum() for part in blocks(flat.size)) / max(1, flat.size)))


def compare_entries(work: Work, a: int, x: int, c: int, plan: Plan) -> Comparison:
    """Compare every entry of one x, for one cotangent; shape [1, n]."""
    mover, place = located(work, x)
    weights = work.full_weights(a)[c]
    gradient = gradient_of(work, a, x)[c]
    magnitude = float(np.linalg.norm(weights * mover.outputs))
    scales = mover.scales[place]
    signs = rademacher(work.rng, len(gradient))
    own = np.abs(gradient) * scales
    noise = 0.5 * mover.eps * _rounding(mover, plan, weights, float(work.reach(a)[c]))
    numeric = elementwise(mover, plan, weights, signs, target=_target(own, own, noise, mover.eps), argument_noise=noise)
    first = compare(
        (gradient * scales)[None], numeric, own[None], work.options, dtype=work.dtype(x), eps=work.gradient_eps,
        magnitude=magnitude, typical=rms(own), coarse=work.coarse(x),
    )  # fmt: skip
    suspects = np.flatnonzero(needs_a_second_look(first)[0])
    if not suspects.size:
        return first
    return _again(work, a, x, c, first, suspects[np.argsort(-first.excess[0][suspects])[:256]])


def _target(own: Reals, every: Reals, noise: Reals, eps: float) -> Reals:
    """Errors worth striving for; those far below the typical derivative need not be a small part of a tiny one."""
    target: Reals = np.maximum(
        worthwhile(own, noise, eps, coarsest=3e-10), (1e-12 if eps < 1e-9 else 5e-3) * rms(every)
    )
    return target


def _rounding(mover: Mover, plan: Plan, weights: Reals, reach: float) -> Reals:
    """Per entry, the Euclidean size of what is rounded on the way to the weighted outputs that it reaches."""
    squares = (weights * mover.outputs) ** 2
    n = mover.base[plan.x].size
    if plan.entry is None:
        return np.full(n, np.sqrt(squares.sum()) + reach)
    groups, outputs = np.nonzero(plan.entry >= 0)
    reached = plan.entry[groups, outputs]
    shares = np.bincount(reached, minlength=n) / max(1, mover.outputs.size)
    return np.sqrt(np.bincount(reached, weights=squares[outputs], minlength=n)) + reach * np.sqrt(shares)


def _again(work: Work, a: int, x: int, c: int, first: Comparison, suspects: Integers) -> Comparison:
    """The comparison with suspects measured alone instead of together with others."""
    alone = compare_some(work, a, x, c, suspects)
    merged = {}
    for name in Comparison.__slots__:
        array = np.array(getattr(first, name))
        array[0, suspects] = getattr(alone, name)[0]
        merged[name] = array
    return Comparison(**merged)


def compare_some(work: Work, a: int, x: int, c: int, entries: Integers) -> Comparison:
    """Compare single entries of one x, each moved alone, with steps of their own and more precisely; [1, entries]."""
    mover, place = located(work, x)
    weights = work.full_weights(a)[c]
    gradient = gradient_of(work, a, x)[c][entries]
    scales = mover.scales[place][entries]
    magnitude = float(np.linalg.norm(weights * mover.outputs))
    floor = np.full(len(entries), 0.5 * mover.eps * magnitude)
    own = gradient * scales
    every = gradient_of(work, a, x)[c] * mover.scales[place]
    target = 0.01 * _target(np.abs(own), every, floor, mover.eps)
    swing = float(np.linalg.norm(weights * mover.swing(place)))
    step = mover.witness_step(place, np.abs(own)[:, None] * weights / (np.linalg.norm(weights) or 1.0))
    numeric, inside = some_entries(
        mover, place, entries, weights[:, None], target=target[:, None], floor=floor[:, None], swing=swing, step=step
    )
    column = compare(
        own[:, None], numeric, np.abs(own)[:, None], work.options, dtype=work.dtype(x), eps=work.gradient_eps,
        magnitude=max(magnitude, swing), typical=rms(every), coarse=work.coarse(x), hidden=16 * mover.eps * swing,
    )  # fmt: skip
    if is_open(column).any():
        rounded = both_off(work, a, work.cotangents[a].weights[c : c + 1])[x]
        if rounded is not None:
            column = forgive(
                column, (rounded[0][entries] * scales)[:, None], work.options, dtype=work.dtype(x),
                eps=work.gradient_eps, magnitude=max(magnitude, swing, rms(every)), inside=inside,
            )  # fmt: skip
    return Comparison(**{name: getattr(column, name).T for name in Comparison.__slots__})


def gradient_of(work: Work, a: int, x: int) -> Reals:
    """Gradients for all cotangents, [c, n]; zeros where TensorFlow gives None."""
    found = work.cotangents[a].wide[x].value
    if found is not None:
        return found
    source = work.traced.sources[x]
    n = int(np.prod(source.shape)) * (2 if source.dtype.is_complex else 1)
    return np.zeros((len(work.cotangents[a].weights), n))


def located(work: Work, x: int) -> tuple[Mover, int]:
    found = work.mover_of(x)
    if found is None:
        raise LookupError("nothing depends on this source")
    return found


def halve(work: Work, a: int, x: int, c: int) -> Wrong | None:
    """Find wrong entries of a large x: k of n in about k log2 n directional derivatives.

    Signs stay the same from level to level, so that of two halves only one is measured: what the first does not
    explain of its parent's difference is the second's.
    """
    signs = rademacher(work.rng, len(gradient_of(work, a, x)[c]))
    whole = np.arange(len(signs))
    frontier = [(whole, *_differences(work, a, x, c, [whole], signs)[0])]
    more, most = False, _FRONTIER if len(signs) < _LARGE else _FRONTIER_OF_LARGE
    while frontier and max(len(block) for block, _, _ in frontier) > 1:
        lefts = [block[: (len(block) + 1) // 2] for block, _, _ in frontier]
        found = _differences(work, a, x, c, lefts, signs)
        parts = []
        for (block, difference, allowed), left, (own, own_allowed) in zip(frontier, lefts, found, strict=True):
            parts.append((left, own, own_allowed))
            if len(left) < len(block):
                parts.append((block[len(left) :], difference - own, allowed + own_allowed))
        wrong = [part for part in parts if abs(part[1]) > part[2]]
        if len(wrong) > most:
            more = True
            wrong = sorted(wrong, key=lambda part: -abs(part[1]) / part[2])[:most]
        frontier = wrong
    if not frontier:
        return None
    entries = np.sort(np.concatenate([block for block, _, _ in frontier]))
    comparison = compare_some(work, a, x, c, entries)
    apart = np.flatnonzero(comparison.outcome[0] >= Outcome.KINK_OUTSIDE)
    if not apart.size:
        return None
    picked = Comparison(**{name: getattr(comparison, name)[:, apart] for name in Comparison.__slots__})
    return Wrong(entries=entries[apart], comparison=picked, more=more)


def clearly_apart(work: Work, a: int, x: int, c: int) -> Comparison | None:
    """The comparison of all entries moved together, [1, 1], where no rounding explains the difference; else None."""
    gradient = gradient_of(work, a, x)[c]
    mover, place = located(work, x)
    found = _moved_together(work, a, x, c, [np.arange(len(gradient))], rademacher(work.rng, len(gradient)))
    size = max(float(np.linalg.norm(gradient * mover.scales[place])), abs(float(found.numeric[0, 0])))
    gap = abs(float(found.analytic[0, 0] - found.numeric[0, 0]))
    return found if found.outcome[0, 0] == Outcome.APART and gap > np.sqrt(eps_of(work.dtype(x))) * size else None


def _differences(work: Work, a: int, x: int, c: int, parts: list[Integers], signs: Reals) -> list[tuple[float, float]]:
    """For subsets of the entries that move together: analytic minus numeric, and how much of it is allowed."""
    compared = _moved_together(work, a, x, c, parts, signs)
    gaps = (compared.analytic - compared.numeric)[:, 0]
    return [(float(g), float(e)) for g, e in zip(gaps, compared.allowed[:, 0], strict=True)]


def _moved_together(work: Work, a: int, x: int, c: int, parts: list[Integers], signs: Reals) -> Comparison:
    """Compare the derivatives along the directions in which subsets of the entries move together, [parts, 1]."""
    mover, place = located(work, x)
    gradient = gradient_of(work, a, x)[c]
    weights = work.full_weights(a)[c]
    moved = signs * mover.scales[place]

    def directions(groups: Integers) -> list[Reals | None]:
        move = np.zeros((len(groups), len(signs)))
        for q, g in enumerate(groups):
            move[q, parts[g]] = moved[parts[g]]
        return [move if k == place else None for k in range(len(mover.base))]

    magnitude = float(np.linalg.norm(weights * mover.outputs))
    own = np.array([float(gradient[p] @ moved[p]) for p in parts])
    size = np.array([float(np.linalg.norm(gradient[p] * moved[p])) for p in parts])
    noise = np.full(len(parts), 0.5 * mover.eps * (magnitude + float(work.reach(a)[c])))
    numeric = mover.derivatives(
        directions, len(parts), reduce=lambda samples, _: (samples @ weights)[:, :, None],
        target=worthwhile(size, noise, mover.eps, coarsest=1e-9)[:, None], argument_noise=noise[:, None],
    )  # fmt: skip
    return compare(
        own[:, None], numeric, size[:, None], work.options, dtype=work.dtype(x), eps=work.gradient_eps,
        magnitude=magnitude,
    )  # fmt: skip
