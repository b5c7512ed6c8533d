"""Wrong entries, named: one by one where that is affordable, by halving where it is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradcheck._check.judge import (
    Comparison,
    Outcome,
    compare,
    forgive,
    is_open,
    kinks_by_faintness,
    needs_a_second_look,
    worthwhile,
)
from gradcheck._check.scatter import both_off
from gradcheck._check.work import Work, eps_of
from gradcheck._derivatives.compressed import Plan, elementwise, some_entries
from gradcheck._derivatives.numeric import Mover
from gradcheck._derivatives.point import Reals
from gradcheck._numerics.directions import blocks, rademacher

Integers = NDArray[np.int64]
_AGAIN = 256  # entries that get a second look
_FRONTIER = 32, 1024  # subsets that are halved at a time, suspicious ones and those with a kink,
_FRONTIER_OF_LARGE, _LARGE = (4, 4), 2**16  # and of so large an x, where each costs much


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """Entries of one x that came out other than right, or at a kink, where no others did.

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
    suspects = suspects[np.argsort(-first.excess[0][suspects])]
    kinks = kinks_by_faintness(first)
    if kinks.size and compare_some(work, a, x, c, kinks[:1]).outcome[0, 0] != Outcome.KINK_WITHIN:
        suspects = np.concatenate([suspects, kinks])
    return _again(work, a, x, c, first, suspects[:_AGAIN]) if suspects.size else first


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
                column, (rounded.off[0][entries] * scales)[:, None], work.options, dtype=work.dtype(x),
                eps=work.gradient_eps, magnitude=max(magnitude, swing, rms(every)), inside=inside,
                beside=(rounded.beside[0][entries] * scales)[:, None],
            )  # fmt: skip
    return Comparison(**{name: getattr(column, name).T for name in Comparison.__slots__})


def mostly_wrong(work: Work, a: int, x: int, c: int, count: int) -> Wrong | None:
    """The wrong ones of some entries, drawn by chance, where those are more than half: then the search is over."""
    n = len(gradient_of(work, a, x)[c])
    chosen = np.random.default_rng(work.options.seed).choice(n, min(count, n), replace=False)
    comparison = compare_some(work, a, x, c, np.sort(chosen))
    wrong = np.flatnonzero(comparison.outcome[0] == Outcome.APART)
    if 2 * wrong.size <= chosen.size:
        return None
    return Wrong(entries=np.sort(chosen)[wrong], comparison=comparison.columns(wrong), more=wrong.size < n)


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


@dataclass(frozen=True, slots=True)
class _Part:
    """Entries that moved together: analytic minus numeric, how much of it is allowed, and whether a kink was met."""

    entries: Integers
    gap: float
    allowed: float
    kink: bool

    @property
    def excess(self) -> float:
        return abs(self.gap) / self.allowed if self.allowed else np.inf


def halve(work: Work, a: int, x: int, c: int, *, smooth: bool = False) -> Wrong | None:
    """Find wrong entries of a large x: k of n in about k log2 n directional derivatives.

    Signs stay the same from level to level, so that of two halves only one is measured: what the first does not
    explain of its parent's difference is the second's. A kink has no derivative to be shared out, and may be as wide
    as what is wrong beside it: both halves are measured then, until it is alone. Entries stand in the order of their
    values, for kinks are where many have the same one, such as 0. Those of one value are let go with `smooth`, which
    asks for what is wrong elsewhere.
    """
    if smooth:
        if len(gradient_of(work, a, x)[c]) >= _LARGE:  # a kink alone is not worth as much as that costs
            return None
        found = _narrowed(work, a, x, c, patient=True, smooth=True)[0]
        return found if found is not None and found.comparison.outcome.max() == Outcome.APART else None
    first, let_go = _narrowed(work, a, x, c, patient=False)
    if let_go and (first is None or first.comparison.outcome.max() < Outcome.APART):
        return _narrowed(work, a, x, c, patient=True)[0]
    return first


def _narrowed(work: Work, a: int, x: int, c: int, *, patient: bool, smooth: bool = False) -> tuple[Wrong | None, bool]:
    """What halving finds, and whether kinks were let go for what is smooth and wrong, which costs less: if `patient`,
    never.
    """
    signs = rademacher(work.rng, len(gradient_of(work, a, x)[c]))
    mover, place = located(work, x)
    frontier = _measured(work, a, x, c, [np.argsort(mover.base[place], kind="stable")], signs)
    more, let_go, (most, kinks) = False, False, _FRONTIER if len(signs) < _LARGE else _FRONTIER_OF_LARGE
    while frontier and max(len(part.entries) for part in frontier) > 1:
        parts = [half for both in _halves(work, a, x, c, frontier, signs) for half in both]
        wrong = sorted((p for p in parts if not p.kink and abs(p.gap) > p.allowed), key=lambda p: -p.excess)
        bent = sorted((p for p in parts if p.kink), key=lambda p: -p.excess)
        if smooth:
            bent = [p for p in bent if np.ptp(mover.base[place][p.entries])]
        pursued = kinks if patient or not wrong else 1
        let_go = let_go or pursued < len(bent) <= kinks
        more = more or let_go or len(wrong) > most or len(bent) > pursued
        frontier = [*wrong[:most], *bent[:pursued]]
    if not frontier:
        return None, let_go
    entries = np.sort(np.concatenate([part.entries for part in frontier]))
    comparison = compare_some(work, a, x, c, entries)
    gravest = comparison.outcome.max()
    if gravest < (Outcome.KINK_OUTSIDE if more else Outcome.KINK_WITHIN):
        return None, let_go
    worst = np.flatnonzero(comparison.outcome[0] == gravest)
    return Wrong(entries=entries[worst], comparison=comparison.columns(worst), more=more), let_go


def _halves(work: Work, a: int, x: int, c: int, wholes: list[_Part], signs: Reals) -> list[list[_Part]]:
    """Each part as its two halves; as itself, measured anew, where it has one entry."""
    middle = [(len(part.entries) + 1) // 2 for part in wholes]
    lefts = _measured(work, a, x, c, [p.entries[:m] for p, m in zip(wholes, middle, strict=True)], signs)
    found = [[left] for left in lefts]
    alone: list[tuple[int, Integers]] = []
    for k, (part, left, m) in enumerate(zip(wholes, lefts, middle, strict=True)):
        rest = part.entries[m:]
        if not rest.size:
            continue
        if part.kink or left.kink:
            alone.append((k, rest))
        else:
            found[k].append(_Part(rest, part.gap - left.gap, part.allowed + left.allowed, False))
    for (k, _), right in zip(alone, _measured(work, a, x, c, [rest for _, rest in alone], signs), strict=True):
        found[k].append(right)
    return found


def clearly_apart(work: Work, a: int, x: int, c: int) -> Comparison | None:
    """The comparison of all entries moved together, [1, 1], where no rounding explains the difference; else None."""
    gradient = gradient_of(work, a, x)[c]
    mover, place = located(work, x)
    found = _moved_together(work, a, x, c, [np.arange(len(gradient))], rademacher(work.rng, len(gradient)))
    size = max(float(np.linalg.norm(gradient * mover.scales[place])), abs(float(found.numeric[0, 0])))
    gap = abs(float(found.analytic[0, 0] - found.numeric[0, 0]))
    return found if found.outcome[0, 0] == Outcome.APART and gap > np.sqrt(eps_of(work.dtype(x))) * size else None


def _measured(work: Work, a: int, x: int, c: int, parts: list[Integers], signs: Reals) -> list[_Part]:
    """Subsets of the entries, each moved together."""
    if not parts:
        return []
    compared = _moved_together(work, a, x, c, parts, signs)
    gaps = (compared.analytic - compared.numeric)[:, 0]
    kinks = (compared.outcome == Outcome.KINK_WITHIN) | (compared.outcome == Outcome.KINK_OUTSIDE)
    every = zip(parts, gaps, compared.allowed[:, 0], kinks[:, 0], strict=True)
    return [_Part(entries, float(gap), float(allowed), bool(kink)) for entries, gap, allowed, kink in every]


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
