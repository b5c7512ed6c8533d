"""The comparison of an analytic with a numeric value: what the two, and their errors, say together."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcheck._check.options import SAFETY, Options
from gradcheck._diagnose.jacobians import shown
from gradcheck._numerics.intervals import Derivatives

# Numeric errors above this part of the derivative decide nothing, unless rtol says otherwise.
RESOLUTION = {
    "float64": 1e-2,
    "complex128": 1e-2,
    "float32": 1e-2,
    "complex64": 1e-2,
    "float16": 1e-2,
    "bfloat16": 3e-2,
}
_ABSORBED = 2.0**-48  # of what derivatives of an x usually are: smaller ones may leave no trace in any sample
_NOTHING = 1e-280  # an error of this size says only that zero has no rounding of its own
_DOUBT, _DOUBT_AMONG_MANY, _MANY = 2.0, 6.0, 5000  # times the error: what is worth a second look
_SMALL = 12  # numbers whose ratios people forget
_ROUNDINGS = 8.0  # units of rounding that a gradient of ordinary depth may be off by


class Outcome(enum.IntEnum):
    """What one comparison says, gravest last."""

    AGREES = 0
    DOUBTFUL = 1  # agrees within the safety factor, but not within twice the error: worth a closer look
    KINK_WITHIN = 2  # at a kink, and the analytic value lies between the one-sided derivatives
    UNDECIDED = 3
    KINK_OUTSIDE = 4
    APART = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Outcomes of many comparisons; every field has the same shape."""

    outcome: NDArray[np.int64]
    analytic: NDArray[np.float64]
    numeric: NDArray[np.float64]
    error: NDArray[np.float64]
    allowed: NDArray[np.float64]
    left: NDArray[np.float64]
    right: NDArray[np.float64]
    order: NDArray[np.int64]
    points: NDArray[np.int64]
    isolated: NDArray[np.bool_]  # whether the analytic value is wrong here, and right a rounding away

    @property
    def excess(self) -> NDArray[np.float64]:
        """Difference in units of allowed; 0 where both are 0, large where only allowed is."""
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.abs(self.analytic - self.numeric) / self.allowed
        return np.nan_to_num(ratio, nan=0.0, posinf=1e300)

    def columns(self, chosen: NDArray[Any]) -> Comparison:
        """Those of some columns."""
        return Comparison(**{name: getattr(self, name)[:, chosen] for name in Comparison.__slots__})

    def worst(self) -> tuple[int, ...]:
        """The index of the gravest comparison, the largest excess first among equals."""
        gravity = self.outcome.astype(np.float64) * 1e3 + np.minimum(np.log1p(self.excess), 700.0)
        return tuple(int(i) for i in np.unravel_index(int(np.argmax(gravity)), gravity.shape))


def compare(
    analytic: Any, numeric: Derivatives, size: Any, options: Options, *, dtype: str, eps: float, magnitude: Any,
    typical: Any = 0.0, coarse: float = 0.0, hidden: Any = 0.0,
) -> Comparison:  # fmt: skip
    """Compare analytic with numeric values.

    The two may be apart by `allowed` = 10 x the numeric error + the rounding of the analytic side + rtol x scale.

    Args:
        analytic: Values, of a shape that broadcasts with the numeric ones.
        numeric: The numeric side.
        size: Euclidean size of the terms that were summed into each analytic value.
        options: rtol decides the last term, and what is precise enough.
        dtype: Of the user's gradient.
        eps: Unit roundoff in which the analytic values were computed.
        magnitude: Of the function's own value, in the same units.
        typical: Size of such derivatives elsewhere in the same x: errors far below it leave nothing open.
        coarse: Relative rounding of the analytic values beyond `eps`, as of constants of a narrow dtype.
        hidden: Derivatives up to this size may be absorbed by rounding inside the function where no sample moves.
    """
    shape = numeric.value.shape
    analytic, size = np.broadcast_to(analytic, shape), np.broadcast_to(size, shape)
    scale = np.maximum(np.abs(analytic), np.where(np.isfinite(numeric.value), np.abs(numeric.value), 0.0))
    rounding = _ROUNDINGS * eps * np.maximum(size, np.abs(analytic))
    rounding = (
        rounding
        + coarse * np.abs(analytic)
        + np.where(numeric.value == 0, np.maximum(hidden, _ABSORBED * typical), 0.0)
    )
    slack = rounding + (options.rtol or 4 * eps) * scale
    with np.errstate(invalid="ignore", over="ignore"):
        allowed = SAFETY * numeric.error + slack
        difference = np.abs(analytic - numeric.value)
        low = (
            np.minimum(numeric.left, numeric.right)
            - SAFETY * np.maximum(numeric.left_error, numeric.right_error)
            - slack
        )
        high = (
            np.maximum(numeric.left, numeric.right)
            + SAFETY * np.maximum(numeric.left_error, numeric.right_error)
            + slack
        )
        resolution = _resolution(options, dtype, eps)
        blunt = (SAFETY * numeric.error > resolution * np.maximum(np.maximum(scale, size), typical)) & (
            scale > SAFETY * numeric.error
        )
        # Consistent with zero: decided when the error is small beside what the function's own rounding leaves.
        vague = (
            (scale <= SAFETY * numeric.error)
            & (numeric.error > _NOTHING)
            & (SAFETY * numeric.error > resolution * np.maximum(np.maximum(magnitude, size), typical))
        )
    outcome = np.full(shape, int(Outcome.AGREES))
    # Among many comparisons of right gradients, some are further apart than usual.
    doubt = _DOUBT if outcome.size < _MANY else _DOUBT_AMONG_MANY
    outcome[difference > doubt * numeric.error + slack] = Outcome.DOUBTFUL
    outcome[blunt | vague] = Outcome.UNDECIDED
    outcome[difference > allowed] = Outcome.APART
    outcome[numeric.nonfinite | ~np.isfinite(numeric.error)] = Outcome.UNDECIDED
    kinks = numeric.kink | numeric.jump
    within = kinks & (low <= analytic) & (analytic <= high)
    outcome[kinks] = Outcome.KINK_OUTSIDE
    outcome[within] = Outcome.KINK_WITHIN
    return Comparison(
        outcome=outcome,
        analytic=analytic,
        numeric=numeric.value,
        error=numeric.error,
        allowed=allowed,
        left=numeric.left,
        right=numeric.right,
        order=numeric.order,
        points=numeric.points,
        isolated=np.zeros(shape, bool),
    )


def _resolution(options: Options, dtype: str, eps: float) -> float:
    """The part of a derivative by which it may be uncertain and still be decided."""
    return options.rtol or max(RESOLUTION.get(dtype, 1e-2), 3e-2 if eps > 1e-9 else 0.0)


def forgive(
    comparison: Comparison, rounding: Any, options: Options, *, dtype: str, eps: float, magnitude: Any, inside: Any,
    beside: Any = np.nan,
) -> Comparison:  # fmt: skip
    """The comparison with what rounding of the analytic side, as it was measured, explains.

    So much of a disagreement is forgiven, unless points a rounding away agree on a gradient, and that is the numeric
    one. And a derivative of which both sides show rounding alone is zero, not open.

    Args:
        comparison: Of which some may be apart or undecided.
        rounding: How far it may put the analytic values off.
        options, dtype, eps: As of `compare`.
        magnitude: Of the function's own value or of derivatives nearby: where rounding is no small part of that, or of
            the derivative itself, nothing is decided.
        inside: Size of the numbers whose rounding is heard inside the function.
        beside: Analytic values on which points a rounding away agree; nan where they do not.
    """
    resolution = _resolution(options, dtype, eps)
    apart = comparison.outcome == Outcome.APART
    allowed = np.where(apart, comparison.allowed + rounding, comparison.allowed)
    size = np.maximum(np.abs(comparison.analytic), np.abs(comparison.numeric))
    small = rounding <= resolution * np.maximum(size, magnitude)
    isolated = apart & (np.abs(beside - comparison.numeric) <= comparison.allowed)
    within = apart & ~isolated & (np.abs(comparison.analytic - comparison.numeric) <= allowed)
    outcome = np.where(within, np.where(small, Outcome.AGREES, Outcome.UNDECIDED), comparison.outcome)
    reached = SAFETY * comparison.error
    nothing = (rounding > 0) & (np.abs(comparison.analytic) <= rounding) & (np.abs(comparison.numeric) <= reached)
    nothing &= reached <= resolution * inside
    still = (comparison.analytic == 0) & (comparison.numeric == 0)
    nothing |= still & ((inside == 0) | (reached <= resolution * inside))  # it does not move at all
    nothing &= comparison.outcome == Outcome.UNDECIDED
    outcome = np.where(nothing, Outcome.AGREES, outcome)
    allowed = np.where(within, allowed, comparison.allowed)
    return replace(comparison, outcome=outcome, allowed=allowed, isolated=isolated)


def is_open(comparison: Comparison) -> NDArray[np.bool_]:
    """Comparisons of which `forgive` may settle some."""
    open_ones: NDArray[np.bool_] = (comparison.outcome == Outcome.APART) | (comparison.outcome == Outcome.UNDECIDED)
    return open_ones


def needs_a_second_look(comparison: Comparison) -> NDArray[np.bool_]:
    """Comparisons that are not settled by one look: disagreements, doubts, and what could not be decided."""
    open_ones: NDArray[np.bool_] = (comparison.outcome == Outcome.DOUBTFUL) | (comparison.outcome >= Outcome.UNDECIDED)
    return open_ones


def kinks_by_faintness(comparison: Comparison) -> NDArray[np.int64]:
    """The columns of a comparison of one row that are at a kink and right there, those first that bend least.

    Where a function is nothing but rounding, such as a sum that cancels, a step of it may pass for a kink. What bends
    least is worth a closer look; if that is a kink, all are.
    """
    at = np.flatnonzero(comparison.outcome[0] == Outcome.KINK_WITHIN)
    return at[np.argsort(np.abs(comparison.right - comparison.left)[0][at], kind="stable")]


def worthwhile(own: Any, noise: Any, eps: float, *, coarsest: float) -> Any:
    """The absolute numeric error worth striving for.

    What the first step reaches is enough, unless that is a large part of the derivative itself.

    Args:
        own: Size of the derivatives.
        noise: Of the samples, as far as it is known beforehand.
        eps: In which the samples are computed.
        coarsest: The largest part of a derivative that its error may be, in float64.
    """
    unit = eps / 2.0**-52
    reached = 4000.0 * noise  # 2.5 x 1.17 x noise / first step, and as much again for what the orders differ by
    return np.where(own > 0, np.clip(reached, 1e-12 * unit * own, max(coarsest, 1e-11 * unit) * own), reached)


def constant_factor(wrong: Comparison, *, single: bool) -> str | None:
    """A hint where one factor explains all wrong entries to within their errors.

    One entry always has a factor; it says something only with `single`, and where it is a ratio of small numbers.
    """
    analytic, numeric, allowed = (a.reshape(-1) for a in (wrong.analytic, wrong.numeric, wrong.allowed))
    if not len(analytic) or (len(analytic) == 1 and not single) or not np.all(np.isfinite(numeric) & (numeric != 0)):
        return None
    factor = float(np.median(analytic / numeric))
    if factor == 0 or np.any(np.abs(analytic - factor * numeric) > allowed * max(1.0, abs(factor))):
        return None
    simple = float(Fraction(factor).limit_denominator(_SMALL))
    if len(analytic) == 1 and (abs(analytic[0] - simple * numeric[0]) > allowed[0] or abs(simple) > _SMALL):
        return None
    entries = "the wrong entry" if len(numeric) == 1 else f"all {len(numeric)} wrong entries"
    if abs(factor + 1) < 1e-6:
        return f"analytic = -numeric in {entries}: the sign is flipped"
    return f"analytic = {shown(factor)} x numeric in {entries}: a constant factor"
