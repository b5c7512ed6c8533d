"""Gradients that are None or zero: does the output really not depend on the input?"""

from __future__ import annotations

import numpy as np

from gradcheck._check.findings import finding
from gradcheck._check.work import Work
from gradcheck._diagnose.cut import find_cut, find_own_gradient
from gradcheck._graph.evaluate import RUN_ERRORS
from gradcheck._numerics.directions import rademacher
from gradcheck._results import Cut, Finding, Verdict

_DIRECTIONS = 8
_FAR = (0.5, -0.5, 1.5, -1.5, 4.0, -4.0)  # in units of the input's scale


def without_gradient(work: Work, a: int, x: int) -> Finding | None:
    """A finding where the gradient is None, or zero for every cotangent; else None.

    A zero gradient of an output that moves, without any op where the path ends, is left to the comparison.
    """
    native, wide = work.cotangents[a].native[x].value, work.cotangents[a].wide[x].value
    absent = native is None and wide is None
    if not absent and (native is None or native.any() or wide is None or wide.any()):
        return None
    if not _moves(work, a, x):
        return finding(work, a, x, Verdict.UNCONNECTED, analytic=None if absent else 0.0, numeric=0.0, error=0.0)
    cut = _cut(work, a, x, absent=absent)
    return _cut_finding(work, a, x, cut, absent=absent) if absent or cut is not None else None


def zero_where_it_moves(work: Work, a: int, x: int, found: Finding) -> Finding:
    """A disagreement with a gradient that is zero everywhere, as a cut; any other finding as it is."""
    wide = work.cotangents[a].wide[x].value
    if found.verdict is not Verdict.MISMATCH or wide is None or wide.any():
        return found
    start, targets = _ends(work, a, x)
    return _cut_finding(work, a, x, find_own_gradient(work.traced, start, targets) if start else None, absent=False)


def _cut_finding(work: Work, a: int, x: int, cut: Cut | None, *, absent: bool) -> Finding:
    return finding(
        work, a, x, Verdict.CUT, cut=cut, analytic=None if absent else 0.0,
        advice="let the gradient pass there (tf.custom_gradient, a smooth surrogate), or wrap the path in "
        "tf.stop_gradient to say that the cut is meant",
    )  # fmt: skip


def _moves(work: Work, a: int, x: int, reach: tuple[float, ...] = _FAR) -> bool:
    """Whether the output changes by a single bit when the input moves, near or far, along several directions."""
    found = work.mover_of(x)
    if found is None:
        return False
    mover, place = found
    n = mover.base[place].size
    first, last = work.span(a)
    for _ in range(_DIRECTIONS if n else 0):
        along = mover.scales[place] * work.rng.uniform(0.5, 1.0, n) * rademacher(work.rng, n)
        try:
            moved = mover.along([along if k == place else None for k in range(len(mover.base))], np.array(reach))
        except RUN_ERRORS:
            return True
        if np.any(np.nan_to_num(moved[:, first:last], nan=0.0) != 0.0):
            return True
    return False


def _cut(work: Work, a: int, x: int, *, absent: bool) -> Cut | None:
    start, targets = _ends(work, a, x)
    return find_cut(work.traced, start, targets, absent=absent) if start is not None else None


def _ends(work: Work, a: int, x: int) -> tuple[str | None, list[str]]:
    source = work.traced.sources[x]
    returns = work.traced.program.main.returns
    return source.argument or source.ref, [returns[p].ref for p in work.traced.outputs[a].returns]
