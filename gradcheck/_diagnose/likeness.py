"""What a wrong Jacobian looks like beside the right one: transposed, clipped, a mean for a sum, wrong where x < 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradcheck._diagnose.jacobians import FEW, Block, Reals, factor_of, is_about, is_everywhere, shown
from gradcheck._diagnose.structures import (
    displaced,
    mean_for_sum,
    of_nothing,
    overwritten,
    own_entry_only,
    spread_from_extremum,
    sum_left_out,
    symmetrized,
    transposed,
)

_SIDES = 8  # entries of x among which a side of a threshold other than 0 is no accident


@dataclass(frozen=True, slots=True)
class Likeness:
    """What a block looks like; a plain constant factor says least."""

    text: str
    plain: bool = False


def likenesses(blocks: Mapping[int, tuple[str, Block]]) -> dict[int, Likeness]:
    """What explains all wrong entries of each block; nothing where nothing does, or where nothing is wrong.

    Args:
        blocks: By any key, what to call the x, and its derivatives.
    """
    found = {}
    for key, (_, block) in blocks.items():
        if np.all(np.isfinite(block.numeric)) and np.all(np.isfinite(block.analytic)) and block.wrong.any():
            text = _swapped(key, blocks) or next((t for rule in _RULES if (t := rule(block)) is not None), None)
            likeness = Likeness(text) if text is not None else _constant_factor(block)
            if likeness is not None:
                found[key] = likeness
    return found


def _swapped(key: int, blocks: Mapping[int, tuple[str, Block]]) -> str | None:
    own = blocks[key][1]
    for other_key, (called, other) in blocks.items():
        if other_key == key or other.numeric.shape != own.numeric.shape or other.shape != own.shape:
            continue
        if own.is_like(other.numeric, other.allowed) and other.is_like(own.numeric, own.allowed):
            return f"the gradients of two inputs are swapped: this is the one of {called}"
    return None


# ------------------------------------------------------------------------------------------------ surrogates


def _surrogate(block: Block) -> str | None:
    """A gradient where the function stands still."""
    if np.any(np.abs(block.numeric) > block.allowed) or block.combined:
        return None
    n = len(block.analytic)
    own = np.diagonal(block.analytic) if block.analytic.shape == (n, n) else np.zeros(0)
    apart = own.size > 0 and not np.any(block.analytic - np.diag(own))
    passed = np.abs(own - 1) <= 1e-6
    if apart and passed.any() and np.all(passed | (own == 0)):
        where = "" if passed.all() else f" in {int(passed.sum())} of {n} entries, and 0 in the others"
        kind, surrogate = f"that of the identity{where}: a straight-through estimator", "lambda x: x"
    else:
        kind, surrogate = "not 0: that of something smooth in its place, as in straight-through estimators", "fn"
    return (
        f"the function stands still here, and its gradient is {kind}; if it is meant, say so by "
        f"check_gradients(..., surrogate={surrogate})"
    )


# ------------------------------------------------------------------------------------------------ complex entries


def _conjugated(block: Block) -> str | None:
    if not block.paired[1] or block.combined:
        return None
    flip = np.tile([1.0, -1.0], block.numeric.shape[1] // 2)
    if block.is_like(block.numeric * flip, block.allowed):
        return "the gradient is the complex conjugate of what TensorFlow asks for"
    if not block.paired[0]:
        return None
    shape = (block.numeric.shape[0] // 2, 2, block.numeric.shape[1] // 2, 2)
    swapped, allowed = (
        np.swapaxes(a.reshape(shape), 1, 3).reshape(block.numeric.shape) for a in (block.numeric, block.allowed)
    )
    if block.is_like(swapped, allowed):
        return "the derivative is not conjugated: TensorFlow asks for upstream * tf.math.conj(derivative)"
    return None


# ------------------------------------------------------------------------------------------------ values


def _clipped(block: Block) -> str | None:
    """Wrong entries that stop at a bound, where right ones stay within."""
    wrong = block.wrong
    if np.sum(wrong) < FEW or np.any(np.abs(block.numeric[wrong]) < np.abs(block.analytic[wrong])):
        return None
    above, below = wrong & (block.analytic < block.numeric), wrong & (block.analytic > block.numeric)
    if np.any(block.numeric[above] <= 0) or np.any(block.numeric[below] >= 0):
        return None  # a bound is passed on the far side of it
    high = float(np.max(block.analytic[above])) if above.any() else np.inf
    low = float(np.min(block.analytic[below])) if below.any() else -np.inf
    bounded = np.clip(block.numeric, low, high)
    several = any(np.ptp(block.numeric[some]) > block.allowed[some].max() for some in (above, below) if some.sum() > 1)
    if high <= 0 or low >= 0 or not several or not block.is_like(bounded, block.allowed):
        return None
    if high == np.inf or low == -np.inf:
        if not np.any(block.reached & ~wrong):  # one value in all entries is no bound
            return None
        side, bound = ("below", high) if low == -np.inf else ("above", low)
        return f"the gradient is clipped: kept {side} {bound:.6g} in all {int(wrong.sum())} wrong entries"
    return f"the gradient is clipped to [{low:.6g}, {high:.6g}] in all {int(wrong.sum())} wrong entries"


def _clipped_norm(block: Block) -> str | None:
    """For several cotangents, gradients of the right direction and of one norm where they would have a larger one."""
    if not block.combined:
        return None
    own, right = np.linalg.norm(block.analytic, axis=1), np.linalg.norm(block.numeric, axis=1)
    cut = block.wrong.any(axis=1)
    if cut.sum() < FEW or np.any(right[cut] <= own[cut]) or np.ptp(right[cut]) <= 1e-6 * right.max():
        return None
    bound = float(np.median(own[cut]))
    scaled = block.numeric * np.where(cut, bound / np.where(right > 0, right, 1.0), 1.0)[:, None]
    if np.any(right[~cut] > bound * (1 + 1e-6)) or not block.is_like(scaled, block.allowed):
        return None
    return f"the gradient is clipped to a norm of {bound:.6g}"


def _wrong_on_one_side(block: Block) -> str | None:
    """Entries of x that are wrong on one side of a threshold, and right on the other."""
    if any(block.paired):
        return None
    columns: NDArray[np.bool_] = np.any(block.wrong, axis=0)
    side = _side(block.base, columns)
    if side is None:
        return None
    factor = factor_of(block)
    also = "" if factor is None else f", analytic = {shown(factor)} x numeric" if factor else ", where analytic = 0"
    wrong, right = int(columns.sum()), int((~columns).sum())
    return f"wrong only where {side}: in all {wrong} entries there{also}, and right in the other {right}"


def _side(values: Reals, wrong: NDArray[np.bool_]) -> str | None:
    if min(wrong.sum(), (~wrong).sum()) < FEW:
        return None
    for name, x in (("x", values), ("|x|", np.abs(values))):
        for relation, sign in (("<", 1.0), (">", -1.0)):
            edge, beyond = float(np.max(sign * x[wrong])), float(np.min(sign * x[~wrong]))
            if edge <= 0 <= beyond and edge < beyond and name == "x":
                return f"x {relation} 0"
            if edge < beyond and len(values) >= _SIDES and not (name == "|x|" and sign * edge <= 0):
                return f"{name} {relation}= {sign * edge:.3g}"
    return None


def _constant_factor(block: Block) -> Likeness | None:
    factor = factor_of(block)
    if factor is None:
        return None
    entries = f"in all {int(block.wrong.sum())} wrong entries of its Jacobian"
    if factor == 0:
        return Likeness(f"analytic = 0 {entries}", plain=not is_everywhere(block))
    if is_about(factor, -1.0):
        return Likeness(f"analytic = -numeric {entries}: the sign is flipped", plain=True)
    return Likeness(f"analytic = {shown(factor)} x numeric {entries}: a constant factor", plain=True)


_RULES: tuple[Callable[[Block], str | None], ...] = (
    _surrogate, spread_from_extremum, transposed, symmetrized, own_entry_only, sum_left_out, overwritten, _conjugated,
    _clipped_norm, mean_for_sum, _clipped, displaced, _wrong_on_one_side, of_nothing,
)  # fmt: skip
