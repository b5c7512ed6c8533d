"""The verdict on a rule that may explain an optimizer's trajectory."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from gradcheck._compare.arrays import CORRECTIONS, FACTORS, PLACES, Array, Replay, nudged_in, rounded_to
from gradcheck._compare.recording import Recording
from gradcheck._compare.roundings import Units
from gradcheck.optimizers._rule import Rule

_NEAR = 1e4  # in units of allowed, from how near rounding hyperparameters here or there can account for the rest
_SOME_PLACES = [some for n in (1, 2, 3) for some in itertools.combinations(PLACES, n)]


def excess(rule: Rule, recording: Recording, rounded: tuple[str, ...] = ()) -> tuple[Array, Array]:
    """How far the rule, and how far the reference, is from the optimizer at each step, in units of what is allowed.

    Where both were run in float64, these runs are judged. Allowed is what they round, and what the rule moves when each
    of its hyperparameters is a few units of float32 off. An optimizer that was seen to compute in float32 may also have
    its hyperparameters so in some places and not in others: whatever comes closest is taken.

    Elsewhere allowed is what the optimizer rounds (measured), what the rule rounds in the dtypes of the variables
    (measured by running it there and in float64), and what it moves when its hyperparameters are rounded to them.

    A value of at most 1 at every step says that the rule accounts for the trajectory; unless the reference does too,
    by the same measure: a rule that rounds without bounds accounts for anything.

    Args:
        rule: The rule.
        recording: The optimizer's trajectory, and the gradients that it saw.
        rounded: Where the rule itself has its hyperparameters in float32.
    """
    if recording.in_float64:
        return _in_float64(rule, recording, rounded)
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
    places = (FACTORS, CORRECTIONS) if dtype != np.float64 else ()
    held = [Replay(rule, start, leaf, adjusted=each, by=nudged_in(dtype)) for each in places]
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


def _in_float64(rule: Rule, recording: Recording, rounded: tuple[str, ...]) -> tuple[Array, Array]:
    units, found = Units(rule, recording.start, recording.layout.leaf[recording.layout.kept], rounded), []
    for gradient, norms, floor, optimizer, reference in zip(
        recording.gradients, recording.norms, recording.floor, recording.wide, recording.wide_reference, strict=True
    ):
        units.step(gradient, norms)
        found.append([_largest_ratio(optimizer, each, floor + units.off) for each in (units.weights, reference)])
    over, refuted = np.array(found).T
    if not recording.exact and not rounded and 1 < over.max() < _NEAR:
        tried = [_in_float64(rule, recording, places) for places in _SOME_PLACES]
        return min([(over, refuted), *tried], key=lambda each: float(each[0].max()))
    return over, refuted


def _largest_ratio(one: Array, other: Array, allowed: Array) -> float:
    """Of difference and allowed; inf where only one is finite, or any difference would be allowed."""
    finite, both = np.isfinite(one) & np.isfinite(other), np.isfinite(one) == np.isfinite(other)
    with np.errstate(invalid="ignore"):
        apart = np.where(finite, abs(one - other), np.where(both, 0.0, np.inf))
    unbounded = ~np.isfinite(allowed) & finite
    ratios = np.divide(apart, allowed, out=np.where(apart > 0, np.inf, 0.0), where=np.isfinite(allowed) & (allowed > 0))
    return float(np.where(unbounded, np.inf, ratios).max())
