"""The directional check: a few random directions at once over everything."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcheck._check import entries as entrywise
from gradcheck._check.findings import OK, from_comparison
from gradcheck._check.judge import Comparison, Outcome, compare, forgive, is_open, needs_a_second_look, worthwhile
from gradcheck._check.naming import name_beside_kinks, name_wrong
from gradcheck._check.scatter import rounding_of_gradients
from gradcheck._check.work import Work
from gradcheck._derivatives.analytic import analytic
from gradcheck._derivatives.numeric import SECOND_WITNESS, Mover
from gradcheck._derivatives.point import Reals
from gradcheck._numerics.directions import blocks as in_cache
from gradcheck._numerics.directions import eighths
from gradcheck._numerics.stencils import NINE, SEVEN
from gradcheck._results import Finding, Verdict

_CONSTANTS = (
    "along random directions the gradient is off by more than float64 rounding, and no entry by more than the "
    "rounding of constants in its own dtype"
)
_LOUDER = 8.0  # than the last rounding of the output and the argument samples may be, and nothing be amiss
_APART = 12  # up to so many xs are moved each on its own; more move all at once first
Pair = tuple[int, int]


def check(work: Work, pairs: Sequence[Pair], findings: dict[Pair, Finding], mode: str) -> None:
    """Compare along random directions, and name the wrong entries of pairs that disagree.

    Args:
        work: The check.
        pairs: Which pairs of output and x to look at.
        findings: Gets one finding per pair.
        mode: With "directional", disagreements are searched to the entry; a thorough mode does that itself.
    """
    for mover in work.movers:
        xs = [x for x in mover.xs if any(p[1] == x for p in pairs)]
        if xs:
            blocks = [xs] if len(xs) > _APART else [[x] for x in xs]
            _descend(work, mover, blocks, {p for p in pairs if p[1] in xs}, findings, mode)


def _descend(
    work: Work, mover: Mover, blocks: list[list[int]], pairs: set[Pair], findings: dict[Pair, Finding], mode: str
) -> None:
    """Check blocks of xs that move together; halve a block that disagrees."""
    while blocks:
        results = compare_blocks(work, mover, blocks)
        open_ones = [b for b in range(len(blocks)) if any(_is_unsettled(mover, r, b) for r in results)]
        if open_ones:
            results = _second_look(work, mover, blocks, open_ones, results)
        halved: list[list[int]] = []
        for b, block in enumerate(blocks):
            open_pairs = [p for p in pairs if p[1] in block]
            suspicious = any(results[a].outcome[b].max() > Outcome.DOUBTFUL for a, _ in open_pairs)
            if suspicious and len(block) > 1:
                halved += [part for part in (block[: len(block) // 2], block[len(block) // 2 :]) if part]
                continue
            for a, x in open_pairs:
                findings[a, x] = _conclude(work, results[a], b, a, x, mode)
        blocks = halved


def _is_unsettled(mover: Mover, result: Comparison, b: int) -> bool:
    """Whether a block needs a second look; also at a kink, which may be a step of rounding, where samples are cheap."""
    kinks = result.outcome[b] == Outcome.KINK_WITHIN
    return bool(needs_a_second_look(result)[b].any() or (kinks.any() and not mover.large))


def _second_look(
    work: Work, mover: Mover, blocks: list[list[int]], open_ones: list[int], results: list[Comparison]
) -> list[Comparison]:
    """The blocks that one look did not settle, along other directions, from other steps and more precisely."""
    again = compare_blocks(work, mover, [blocks[b] for b in open_ones], closely=True)
    merged = []
    for first, second in zip(results, again, strict=True):
        fields = {n: np.array(getattr(first, n)) for n in Comparison.__slots__}
        for n, array in fields.items():
            array[open_ones] = getattr(second, n)
        merged.append(Comparison(**fields))
    return merged


class _Drawn:
    """Random directions for blocks of xs that move together; group b k + d is direction d of block b.

    With `alone`, entries that are 0 or share their value with others stay where they are: kinks are mostly met there.
    """

    def __init__(self, work: Work, mover: Mover, blocks: list[list[int]], *, alone: bool = False) -> None:
        self.mover, self.blocks, self.count = mover, blocks, work.options.directions
        self.members = [{mover.xs.index(x) for x in block} for block in blocks]
        # Of several sizes, so that no two entries can cancel exactly in all of them; quarters keep steps exact.
        self._eighths = [eighths(work.rng, (self.count, b.size)) for b in mover.base]
        for base, drawn in zip(mover.base, self._eighths, strict=True) if alone else ():
            _, first, counts = np.unique(base, return_inverse=True, return_counts=True)
            drawn[:, (counts[first] > 1) | (base == 0)] = 0

    def moved(self, place: int, some: NDArray[np.int64] | slice) -> Reals:
        """Directions in one source; made when they are needed, for those of a large model fill the memory."""
        drawn, scales = self._eighths[place][some], self.mover.scales[place]
        along = np.empty(drawn.shape)
        for part in in_cache(scales.size):
            np.multiply(drawn[:, part], scales[part], out=along[:, part])
            along[:, part] *= 0.25
        return along

    def __call__(self, groups: NDArray[np.int64]) -> list[Reals | None]:
        """The directions of some groups, per source."""
        result: list[Reals | None] = []
        for place in range(len(self._eighths)):
            inside = np.array([place in self.members[g // self.count] for g in groups])
            along = self.moved(place, groups % self.count) if inside.any() else None
            if along is not None and not inside.all():
                along[~inside] = 0.0
            result.append(along)
        return result

    def slopes(self, work: Work, spans: list[slice]) -> tuple[Reals, Reals]:
        """The gradients along the directions, [blocks, directions, cotangents], and how large they are typically."""
        own = np.zeros((len(self.blocks), self.count, spans[-1].stop))
        squares = np.zeros_like(own)
        for a, span in enumerate(spans):
            for b, block in enumerate(self.blocks):
                for x in block:
                    gradient, place = entrywise.gradient_of(work, a, x), self.mover.xs.index(x)
                    for some in in_cache(gradient.shape[1]):
                        scaled = gradient[:, some] * self.mover.scales[place][some]
                        own[b, :, span] += self._eighths[place][:, some] @ (0.25 * scaled.T)
                        squares[b, :, span] += np.square(scaled).sum(axis=1)
        return own, np.sqrt(squares)

    def rounding(self, work: Work, a: int, b: int) -> Reals:
        """How far rounding scatters the gradient of an output along a block's directions, [directions, cotangents]."""
        spread = np.zeros((self.count, len(work.cotangents[a].weights)))
        for x in self.blocks[b]:
            rounded, place = rounding_of_gradients(work, a)[x], self.mover.xs.index(x)
            if rounded is not None:
                spread += np.sqrt(self.moved(place, slice(None)) ** 2 @ (rounded**2).T)
        return spread


def compare_blocks(
    work: Work, mover: Mover, blocks: list[list[int]], *, closely: bool = False, alone: bool = False
) -> list[Comparison]:
    """For every output, comparisons of shape [blocks, directions, cotangents]."""
    drawn = _Drawn(work, mover, blocks, alone=alone)
    weights = [work.full_weights(a) for a in range(len(work.cotangents))]
    ends = np.cumsum([0, *(len(w) for w in weights)]).tolist()
    spans = [slice(*pair) for pair in itertools.pairwise(ends)]
    every = np.concatenate(weights)
    own, size = drawn.slopes(work, spans)
    magnitude = np.broadcast_to(np.linalg.norm(every * mover.outputs, axis=1), own.shape)
    noise = 0.5 * mover.eps * (magnitude + np.concatenate([work.reach(a) for a in range(len(weights))]))
    target = worthwhile(size, _LOUDER * noise, mover.eps, coarsest=1e-9)
    step: Any = None
    grain: Any = None
    begin = NINE
    if mover.large:  # samples cost much: no more of them than entries call for, and close, where they tell most
        target, step = np.maximum(target, 1e-7 * size), mover.first_step / 4
        if not mover.point.unpromoted:
            begin, step = SEVEN, mover.first_step / 16
    hidden, inside = np.zeros(own.shape), np.zeros(own.shape)
    flat = own.size // len(every), len(every)
    if closely:
        target = 0.01 * target
        heard = mover.rounding_noise(drawn, flat[0], reduce=lambda samples, _: samples @ every.T)
        noise = np.maximum(0.5 * mover.eps * magnitude, heard.reshape(own.shape))
        swings = np.array([_swing(mover, inside) for inside in drawn.members])
        reached = np.linalg.norm(every[None] * swings[:, None], axis=2)[:, None]
        grain = np.broadcast_to(mover.eps * reached, own.shape).reshape(flat)
        hidden = np.broadcast_to(16 * mover.eps * reached, own.shape)
        inside = heard.reshape(own.shape) / (0.5 * mover.eps)
        magnitude = np.maximum(magnitude, np.broadcast_to(reached, own.shape))
        with np.errstate(divide="ignore", invalid="ignore"):
            pace = np.nan_to_num(np.abs(own) / reached, nan=0.0, posinf=0.0).max(axis=2).reshape(-1)
            step = np.clip(np.where(pace > 0, 0.05 / pace, np.inf), 2.0**-45, SECOND_WITNESS * mover.first_step)
    numeric = mover.derivatives(
        drawn, flat[0], reduce=lambda samples, _: samples @ every.T, target=target.reshape(flat),
        argument_noise=noise.reshape(flat), step=step, grain=grain, begin=begin,
    )  # fmt: skip
    rules: dict[str, Any] = {"dtype": work.dtype(mover.xs[0]), "eps": work.gradient_eps}
    whole = compare(
        own.reshape(flat), numeric, size.reshape(flat), work.options, magnitude=magnitude.reshape(flat),
        hidden=hidden.reshape(flat), **rules,
    )  # fmt: skip
    parts = [_part(whole, own.shape, span) for span in spans]
    for a, span in enumerate(spans if closely else ()):
        if is_open(parts[a]).any():
            spread = np.stack([drawn.rounding(work, a, b) for b in range(len(blocks))])
            parts[a] = forgive(
                parts[a], spread, work.options, magnitude=magnitude[:, :, span], inside=inside[:, :, span], **rules
            )
    return parts


def _swing(mover: Mover, places: set[int]) -> Reals:
    """How far the outputs swing with some sources: with each alone, in all or, where each costs much, with all."""
    if mover.large:
        return mover.swing(*sorted(places))
    return sum((mover.swing(p) for p in places), np.zeros(mover.outputs.size))


def _part(whole: Comparison, shape: tuple[int, ...], span: slice) -> Comparison:
    return Comparison(**{n: getattr(whole, n).reshape(shape)[:, :, span] for n in Comparison.__slots__})


def _conclude(work: Work, comparison: Comparison, b: int, a: int, x: int, mode: str) -> Finding:
    here = Comparison(**{n: getattr(comparison, n)[b] for n in Comparison.__slots__})
    at = here.worst()
    outcome = Outcome(int(here.outcome[at]))
    if outcome not in OK and mode == "directional":
        named = name_wrong(work, a, x, at[1])
        if named is not None and (work.point.narrow or not named.ok or outcome is not Outcome.APART):
            return named
        if outcome is Outcome.KINK_OUTSIDE:
            return _beside_kinks(work, a, x) or from_comparison(work, a, x, here, at)
        if work.point.narrow and outcome is Outcome.APART:
            work.notes.append(_CONSTANTS)
            return _taken_as_rounding(from_comparison(work, a, x, here, at), here, at)
    if outcome is Outcome.KINK_WITHIN and mode == "directional":
        return _hidden_by_kinks(work, a, x) or from_comparison(work, a, x, here, at)
    return from_comparison(work, a, x, here, at)


def _hidden_by_kinks(work: Work, a: int, x: int) -> Finding | None:
    """A finding where something is wrong beside the kinks that a random direction meets."""
    mover, _ = entrywise.located(work, x)
    found = compare_blocks(work, mover, [[x]], alone=True)[a]
    here = Comparison(**{n: getattr(found, n)[0] for n in Comparison.__slots__})
    at = here.worst()
    if here.outcome[at] <= Outcome.DOUBTFUL:
        return None
    named = name_beside_kinks(work, a, x, at[1])
    return from_comparison(work, a, x, here, at) if named is None and here.outcome[at] == Outcome.APART else named


def _beside_kinks(work: Work, a: int, x: int) -> Finding | None:
    """A finding where the gradient lies between the one-sided slopes once all outputs count with the same sign.

    With signs of both kinds the kinks of many outputs cancel in the slopes, and the gradient may lie outside of them
    though it lies within them at each output.
    """
    own = work.cotangents[a]
    weights = np.abs(own.weights[:1])
    if (weights == own.weights[:1]).all():
        return None
    wide = analytic(work.point, a, weights, work.shapes[a], wide=work.point.narrow)
    cotangents = list(work.cotangents)
    cotangents[a] = replace(own, weights=weights, wide=wide)
    alike = replace(work, cotangents=cotangents, reaches={}, roundings={})
    mover, _ = entrywise.located(work, x)
    found = compare_blocks(alike, mover, [[x]])[a]
    if found.outcome.max() > Outcome.KINK_WITHIN:
        return None
    here = Comparison(**{n: getattr(found, n)[0] for n in Comparison.__slots__})
    return from_comparison(alike, a, x, here, here.worst())


def _taken_as_rounding(found: Finding, here: Comparison, at: tuple[int, ...]) -> Finding:
    difference = abs(float(here.analytic[at] - here.numeric[at]))
    return replace(found, verdict=Verdict.MATCH, ok=True, allowed=max(float(here.allowed[at]), difference), advice=None)
