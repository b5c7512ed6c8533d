"""Gradients that are None or zero: does the output really not depend on the input?"""

from __future__ import annotations

import numpy as np

from gradcheck._check.findings import finding
from gradcheck._check.work import Work
from gradcheck._diagnose.cut import find_cut
from gradcheck._results import Cut, Finding, Verdict

_FAR = (0.5, -0.5, 1.5, -1.5, 4.0, -4.0)  # in units of the input's scale


def without_gradient(work: Work, a: int, x: int) -> Finding | None:
    """A finding where the gradient is None, or zero for every cotangent; else None.

    A zero gradient of an output that moves, without any op where the path ends, is left to the comparison.
    """
    native, wide = work.cotangents[a].native[x].value, work.cotangents[a].wide[x].value
    absent = native is None and wide is None
    if not absent and (native is None or native.any() or wide is None or wide.any()):
        return None
    found = work.mover_of(x)
    moves = _moves(work, a, x) if found is not None else False
    if not moves:
        return finding(work, a, x, Verdict.UNCONNECTED, analytic=None if absent else 0.0, numeric=0.0, error=0.0)
    cut = _cut(work, a, x)
    if not absent and cut is None and not _moves(work, a, x, reach=(2.0**-12, -(2.0**-12))):
        return None
    what = "None" if absent else "zero"
    reason = f"the gradient is {what}, yet {work.traced.outputs[a].path} moves when {work.traced.sources[x].path} moves"
    return finding(
        work, a, x, Verdict.CUT, reason=reason, cut=cut, analytic=None if absent else 0.0,
        advice="let the gradient pass there (tf.custom_gradient, a smooth surrogate), or wrap the path in "
        "tf.stop_gradient to say that the cut is meant",
    )  # fmt: skip


def _moves(work: Work, a: int, x: int, reach: tuple[float, ...] = _FAR) -> bool:
    """Whether the output changes by a single bit when the input moves, near or far."""
    found = work.mover_of(x)
    if found is None:
        return False
    mover, place = found
    n = mover.base[place].size
    if not n:
        return False
    direction = mover.scales[place] * work.rng.uniform(0.5, 1.0, n) * work.rng.choice([-1.0, 1.0], n)
    moves = np.array(reach)[:, None] * direction
    samples = mover.at([moves if k == place else None for k in range(len(mover.base))])
    first, last = work.span(a)
    changed = samples[:, first:last]
    return bool(np.any(np.nan_to_num(changed, nan=0.0) != 0.0))


def _cut(work: Work, a: int, x: int) -> Cut | None:
    source = work.traced.sources[x]
    start = source.argument or source.ref
    returns = work.traced.program.main.returns
    targets = [returns[p].ref for p in work.traced.outputs[a].returns]
    return find_cut(work.traced, start, targets) if start is not None else None
