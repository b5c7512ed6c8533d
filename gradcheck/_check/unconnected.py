"""Gradients that are None or zero: does the output really not depend on the input?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradcheck._check.findings import finding
from gradcheck._check.work import Work
from gradcheck._diagnose.cut import find_cut
from gradcheck._diagnose.remedies import OUTSIDE, PARTLY, READ_INSIDE
from gradcheck._graph.evaluate import RUN_ERRORS
from gradcheck._graph.trace import Outside, Traced
from gradcheck._numerics.directions import rademacher
from gradcheck._results import Cut, Finding, Verdict

_DIRECTIONS = 8
_SMOOTH = "let the gradient pass there, by tf.custom_gradient or something smooth in its place"
_ROUNDING = 2.0**-20  # of an output: what moves by less may be rounding
_VARYING = 64.0  # times what differs between two runs
_NEAR = (2.0**-20, -(2.0**-20))  # in units of the input's scale
_FAR = (0.5, -0.5, 1.5, -1.5, 4.0, -4.0)  # in units of the input's scale


def without_gradient(work: Work, a: int, x: int) -> Finding | None:
    """A finding where the gradient is None, or zero for every cotangent; else None.

    A zero gradient of an output that moves, without any op where the path ends, is left to the comparison.
    """
    native, wide = work.cotangents[a].native[x].value, work.cotangents[a].wide[x].value
    absent = native is None and wide is None
    if not absent and (native is None or native.any() or wide is None or wide.any()):
        return None
    path = work.traced.sources[x].path
    if absent and path in work.traced.outside:
        return _outside(work, a, x, work.traced.outside[path])
    if not _moves(work, a, x):
        return finding(work, a, x, Verdict.UNCONNECTED, analytic=None if absent else 0.0, numeric=0.0, error=0.0)
    if work.options.second and not _moves(work, a, x, _NEAR):  # as that of a maximum, which jumps where it has a kink
        return finding(work, a, x, Verdict.MATCH, analytic=0.0, numeric=0.0, error=0.0)
    cut = _cut(work, a, x, absent=absent)
    return _cut_finding(work, a, x, cut, absent=absent) if absent or cut is not None else None


def _outside(work: Work, a: int, x: int, outside: Outside) -> Finding:
    """A variable that was read outside, or that a constant looks like something of: cut, or one way of several is."""
    place = outside.place
    like = f"a constant here looks like {place.op}: " if place.op_type == "Constant" else ""
    cut = Cut(place=place, reason=like + OUTSIDE, remedy=READ_INSIDE)
    if len(outside.slopes) != len(work.traced.outputs):
        return _cut_finding(work, a, x, cut, absent=True)
    slope = outside.slopes[a]
    verdict = Verdict.MISMATCH if slope.is_off else Verdict.MATCH
    found = finding(
        work, a, x, verdict, analytic=slope.analytic, numeric=slope.numeric, error=slope.error, allowed=slope.allowed,
        cut=cut if slope.is_off else None, reason=PARTLY if slope.is_off else None,
        advice=instead_of(cut) if slope.is_off else None,
    )  # fmt: skip
    return replace(found, twin=False)  # measured eagerly


def zero_where_it_moves(work: Work, a: int, x: int, found: Finding) -> Finding:
    """A disagreement with a gradient that is zero everywhere, as a cut at what is then blamed; any other as it is."""
    wide = work.cotangents[a].wide[x].value
    if found.verdict is not Verdict.MISMATCH or wide is None or wide.any():
        return found
    return finding(work, a, x, Verdict.CUT, analytic=0.0)


def _cut_finding(work: Work, a: int, x: int, cut: Cut | None, *, absent: bool) -> Finding:
    advice = None if cut is None else instead_of(cut)
    return finding(work, a, x, Verdict.CUT, cut=cut, analytic=None if absent else 0.0, advice=advice)


def instead_of(cut: Cut) -> str:
    """What to do about a cut."""
    if cut.remedy == READ_INSIDE:
        return (
            f"{cut.remedy}; where it is meant to be a constant, leave the variable out of wrt, or make it not trainable"
        )
    return f"{cut.remedy or _SMOOTH}; where the cut is meant, say so by tf.stop_gradient"


def _moves(work: Work, a: int, x: int, reach: tuple[float, ...] = _FAR) -> bool:
    """Whether the output changes, by a bit that it keeps to, when the input moves, near or far along directions."""
    found = work.mover_of(x)
    if found is None:
        return False
    mover, place = found
    n = mover.base[place].size
    first, last = work.span(a)
    for _ in range(_DIRECTIONS if n else 0):
        along = mover.scales[place] * work.rng.uniform(0.5, 1.0, n) * rademacher(work.rng, n)
        directions = [along if k == place else None for k in range(len(mover.base))]
        try:
            moved = np.nan_to_num(mover.along(directions, np.array(reach))[:, first:last], nan=0.0)
            if not moved.any():
                continue
            if np.max(np.abs(moved)) > _ROUNDING * np.max(np.abs(work.values[a])):
                return True
            again = np.nan_to_num(mover.along(directions, np.array(reach))[:, first:last], nan=0.0)
        except RUN_ERRORS:
            return True
        # Threads that take sums in varying order change a bit of what does not depend on the input at all.
        if np.max(np.abs(moved)) > _VARYING * np.max(np.abs(again - moved)):
            return True
    return False


def _cut(work: Work, a: int, x: int, *, absent: bool) -> Cut | None:
    start, targets = ends(work.traced, a, x)
    return find_cut(work.traced, start, targets, absent=absent) if start is not None else None


def ends(traced: Traced, a: int, x: int) -> tuple[str | None, list[str]]:
    """References of an x and of an output, between which paths lead."""
    source, returns = traced.sources[x], traced.program.main.returns
    return source.argument or source.ref, [returns[p].ref for p in traced.outputs[a].returns]
