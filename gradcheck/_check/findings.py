"""Findings, made from comparisons."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gradcheck._check.judge import Comparison, Outcome
from gradcheck._check.options import SAFETY
from gradcheck._check.work import Work
from gradcheck._derivatives.numeric import Mover
from gradcheck._graph.provenance import held_places
from gradcheck._results import Finding, Held, Verdict

_VERDICTS = {
    Outcome.AGREES: Verdict.MATCH,
    Outcome.DOUBTFUL: Verdict.MATCH,
    Outcome.KINK_WITHIN: Verdict.NONSMOOTH,
    Outcome.UNDECIDED: Verdict.INCONCLUSIVE,
    Outcome.KINK_OUTSIDE: Verdict.NONSMOOTH,
    Outcome.APART: Verdict.MISMATCH,
}
_ISOLATED = (
    "the gradient is wrong at this very point and right a rounding away from it: a special case, such as of a factor "
    "that is 0 here, has another gradient"
)
_SHARPEN = "check at a point where less cancels in the gradient, in a wider dtype, or with a formula that loses less"
OK = (Outcome.AGREES, Outcome.DOUBTFUL, Outcome.KINK_WITHIN)


def finding(work: Work, a: int, x: int, verdict: Verdict, *, ok: bool | None = None, **fields: Any) -> Finding:
    """A finding on one pair, with what every finding says."""
    source = work.traced.sources[x]
    mover = work.mover_of(x)
    return Finding(
        verdict=verdict,
        ok=(verdict in (Verdict.MATCH, Verdict.UNCONNECTED)) if ok is None else ok,
        y=work.traced.outputs[a].path,
        x=source.path,
        dtype=work.dtype(x),
        size=int(np.prod(source.shape)),
        twin=work.point.narrow,
        held=_held(work, mover[0]) if mover else (),
        **fields,
    )


def _held(work: Work, mover: Mover) -> tuple[Held, ...]:
    """What is held, looked up once: a model has as many findings as variables."""
    found: tuple[Held, ...] = work.point.made(
        ("held places", mover.xs, len(mover.spans)), lambda: held_places(work.traced, mover.held)
    )
    return found


def from_comparison(
    work: Work, a: int, x: int, comparison: Comparison, at: tuple[int, ...], *, entry: int | None = None,
    unit: float = 1.0, native: float | None = None, y_entry: int | None = None, **fields: Any,
) -> Finding:  # fmt: skip
    """The finding that one comparison of many gives.

    Args:
        work: The check.
        a: The output.
        x: The source.
        comparison: All comparisons.
        at: Which one.
        entry: The entry of x, among its reals, where one was singled out.
        unit: The scale in which the comparison was made; numbers are divided by it.
        native: The analytic value in the function's own dtype, where that is narrower.
        y_entry: The real of the output, where one was singled out.
        fields: Further fields of the finding.
    """
    outcome = Outcome(int(comparison.outcome[at]))
    verdict = _VERDICTS[outcome]
    index, part = position(work, x, entry)
    numeric = float(comparison.numeric[at]) / unit
    kink = verdict is Verdict.NONSMOOTH
    sides = (float(comparison.left[at]) / unit, float(comparison.right[at]) / unit) if kink else None
    compared = float(comparison.analytic[at]) / unit
    own = compared if native is None else native
    # What a narrow gradient is off the one that was compared is its rounding, or is found wrong as such.
    rounded = abs(own - compared) if outcome in OK else 0.0
    made = finding(
        work, a, x, verdict, ok=outcome in OK, index=index, part=part, analytic=own, numeric=numeric,
        error=float(comparison.error[at]) / unit, allowed=float(comparison.allowed[at]) / unit + rounded,
        points=int(comparison.points[at]), order=int(comparison.order[at]), one_sided=sides,
        advice=_advice(outcome, comparison, at), y_index=_output_index(work, a, y_entry),
        reason=_ISOLATED if comparison.isolated[at] else None, **fields,
    )  # fmt: skip
    return replace(made, advice=_SHARPEN) if made.blurred else made


def position(work: Work, x: int, entry: int | None) -> tuple[tuple[int, ...] | None, str | None]:
    """The index in x, and which part of a complex entry, of one of its reals."""
    if entry is None:
        return None, None
    source = work.traced.sources[x]
    part = None
    if source.dtype.is_complex:
        entry, rest = divmod(entry, 2)
        part = ("real", "imag")[rest]
    return tuple(int(i) for i in np.unravel_index(entry, source.shape)) if source.shape else (), part


def _output_index(work: Work, a: int, entry: int | None) -> tuple[int, ...] | None:
    if entry is None or len(work.shapes[a]) != 1:
        return None
    shape = work.shapes[a][0]
    parts = work.values[a].size // max(1, int(np.prod(shape)))
    return tuple(int(i) for i in np.unravel_index(entry // max(1, parts), shape)) if shape else ()


def _advice(outcome: Outcome, comparison: Comparison, at: tuple[int, ...]) -> str | None:
    if outcome is Outcome.UNDECIDED:
        scale = max(abs(float(comparison.analytic[at])), abs(float(comparison.numeric[at])))
        needed = SAFETY * float(comparison.error[at]) / scale if scale > 0 else np.inf
        if needed <= 0.1:
            rtol = 10 ** np.ceil(np.log10(needed))
            return f"rtol={rtol:.0e} would decide it here; so would a point where the function itself is smaller"
        return "no rtol decides it: the derivative is lost in the rounding of the function"
    if outcome is Outcome.KINK_OUTSIDE:
        return (
            "move the point off the kink; if the gradient is then right, only the value chosen at the kink "
            "is not between the one-sided derivatives"
        )
    return None
