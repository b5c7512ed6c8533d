"""The verdict on a rule that may explain an optimizer's trajectory."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradcheck._compare.arrays import PLACES, Array, Replay, nudged_in, rounded_to
from gradcheck._compare.recording import Recording
from gradcheck.optimizers._rule import Rule


def excess(rule: Rule, recording: Recording, rounded: tuple[str, ...] = ()) -> tuple[Array, Array]:
    """How far the rule, and how far the reference, is from the optimizer at each step, in units of what is allowed.

    Allowed is what the optimizer rounds (measured), what the rule rounds in the dtypes of the variables (measured by
    running it there and in float64), and what it moves when its hyperparameters are rounded to them. A value of at
    most 1 at every step says that the rule accounts for the trajectory; unless the reference does too, by the same
    measure: a rule that rounds without bounds accounts for anything.

    Args:
        rule: The rule.
        recording: The optimizer's trajectory, and the gradients that it saw.
        rounded: Where the rule itself has its hyperparameters in float32.
    """
    layout = recording.layout
    found = np.zeros((2, len(recording.weights)))
    of_entry = np.array([np.dtype(dtype).str for dtype in layout.dtypes])[layout.leaf[layout.kept]]
    for kind in np.unique(of_entry):
        which = np.flatnonzero(of_entry == kind)
        dtype = layout.dtypes[int(layout.leaf[layout.kept[which[0]]])]
        found = np.maximum(found, _excess(rule, recording, which, dtype, rounded))
    return found[0], found[1]


def _excess(rule: Rule, recording: Recording, which: Array, dtype: Any, rounded: tuple[str, ...]) -> Array:
    start, leaf = recording.start[which], recording.layout.leaf[recording.layout.kept[which]]
    exact, own = (
        Replay(rule, start, leaf, kind, adjusted=rounded, by=rounded_to(np.float32)) for kind in (np.float64, dtype)
    )
    places = PLACES if dtype != np.float64 else ()
    held = [Replay(rule, start, leaf, adjusted=[place], by=nudged_in(dtype)) for place in places]
    rounding, off, found = np.zeros(len(which)), np.zeros(len(which)), []
    for step, (gradient, norms) in enumerate(zip(recording.gradients, recording.norms, strict=True)):
        in_float64 = exact.step(gradient[which], norms)
        weights = own.step(gradient[which], norms).astype(np.float64)
        rounding = np.maximum(rounding, abs(weights - in_float64))
        if held:
            moved = sum(abs(replay.step(gradient[which], norms) - in_float64) for replay in held)
            off = np.maximum(off, np.nan_to_num(moved))
        allowed = recording.rounding[step][which] + rounding + 2 * off + recording.floor[step][which]
        optimizer, reference = recording.weights[step][which], recording.reference[step][which]
        found.append([_largest_ratio(optimizer, each, allowed) for each in (weights, reference)])
    ratios: Array = np.array(found).T
    return ratios


def _largest_ratio(one: Array, other: Array, allowed: Array) -> float:
    """Of difference and allowed; inf where only one is finite, or any difference would be allowed."""
    finite, both = np.isfinite(one) & np.isfinite(other), np.isfinite(one) == np.isfinite(other)
    with np.errstate(invalid="ignore"):
        apart = np.where(finite, abs(one - other), np.where(both, 0.0, np.inf))
    unbounded = ~np.isfinite(allowed) & finite
    ratios = np.divide(apart, allowed, out=np.where(apart > 0, np.inf, 0.0), where=np.isfinite(allowed) & (allowed > 0))
    return float(np.where(unbounded, np.inf, ratios).max())
