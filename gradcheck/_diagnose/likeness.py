"""What a wrong Jacobian looks like beside the right one: transposed, clipped, a mean for a sum, wrong where x < 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
_FEW = 2  # wrong entries from which something common to them may be said
_SIDES = 8  # entries of x among which a side of a threshold other than 0 is no accident


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Derivatives with respect to one x, analytic beside numeric.

    Attributes:
        analytic, numeric: [k, n]; a row per real of the output or, of an output that is `combined`, per cotangent.
        allowed: How far apart they may be, [k, n].
        base: The values of x, [n].
        shape: Of x.
        y_shape: Of the output; None where it is several tensors.
        combined: Whether rows belong to cotangents.
        paired: Whether the reals are those of complex entries, of x and of the output.
    """

    analytic: Reals
    numeric: Reals
    allowed: Reals
    base: Reals
    shape: tuple[int, ...]
    y_shape: tuple[int, ...] | None
    combined: bool = False
    paired: tuple[bool, bool] = (False, False)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Where the two are further apart than allowed."""
        found: NDArray[np.bool_] = np.abs(self.analytic - self.numeric) > self.allowed
        return found

    def is_like(self, other: Reals, allowed: Reals) -> bool:
        """Whether the analytic side is another matrix throughout, and that is not the numeric one too."""
        reach = np.maximum(allowed, self.allowed)
        same = bool(np.all(np.abs(self.analytic - other) <= reach))
        return same and int(np.sum(np.abs(other - self.numeric) > reach)) >= _FEW


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
    if np.any(np.abs(block.numeric) > block.allowed) or block.combined:
        return None
    declare = "if it is meant, say so by check_gradients(..., surrogate=fn)"
    one_each = block.analytic.shape[0] == block.analytic.shape[1]
    if one_each and np.all(np.abs(block.analytic - np.eye(len(block.analytic))) <= block.allowed):
        return (
            "the function stands still here, and the gradient is that of the identity: a straight-through estimator; "
            "if it is meant, say so by check_gradients(..., surrogate=lambda x: x)"
        )
    one_each = one_each and not np.any(block.analytic * (1 - np.eye(len(block.analytic))))
    kind = " each entry's gradient reaches that entry only," if one_each else ""
    return (
        f"the function stands still here, and the gradient does not vanish:{kind} as in straight-through estimators; "
        + declare
    )


# ------------------------------------------------------------------------------------------------ axes


def _transposed(block: Block) -> str | None:
    """Axes of the Jacobian, those of the output and then those of x, that changed places."""
    if block.combined or block.y_shape is None or any(block.paired):
        return None
    shape = (*block.y_shape, *block.shape)
    first = len(block.y_shape)
    numeric, allowed = block.numeric.reshape(shape), block.allowed.reshape(shape)

    def fits(change: Callable[[Any], Any]) -> bool:
        matrix = block.numeric.shape
        return block.is_like(change(numeric).reshape(matrix), change(allowed).reshape(matrix))

    for p, q in combinations(range(len(shape)), 2):
        if shape[p] == shape[q] > 1 and fits(partial(np.swapaxes, axis1=p, axis2=q)):
            if p >= first:
                return f"the gradient is transposed: its axes {p - first} and {q - first} are swapped"
            if q < first:
                return f"the upstream gradient is used transposed: its axes {p} and {q} are swapped"
            return (
                f"a matrix is used where its transpose belongs: axis {p} of the output and axis {q - first} of the "
                "input are swapped"
            )
    if block.y_shape == block.shape and len(block.shape) > 1 and fits(lambda a: _full_transpose(a, first)):
        return "the Jacobian is used where its transpose belongs"
    if len(block.shape) > 1 and block.shape[-1] != block.shape[-2] and fits(lambda a: np.swapaxes(a, -1, -2)):
        return "the transposed gradient was reshaped to the shape of the input, and not transposed back"
    return None


def _full_transpose(a: Any, first: int) -> Any:
    return np.transpose(a, (*range(first, a.ndim), *range(first)))


def _one_of_a_broadcast_axis(block: Block) -> str | None:
    """Gradients of an x that was broadcast, taken from one entry along an axis in place of the sum of all."""
    if block.combined or block.y_shape is None or any(block.paired) or prod(block.y_shape) <= prod(block.shape):
        return None
    analytic = block.analytic.reshape(*block.y_shape, -1)
    wrong = block.wrong.reshape(analytic.shape)
    missing = np.abs(analytic) <= block.allowed.reshape(analytic.shape)
    for axis, length in enumerate(block.y_shape):
        for k in range(length if length > 1 else 0):
            rest = np.delete(wrong, k, axis)
            nothing = np.all(np.delete(missing, k, axis)) and not np.all(np.take(missing, k, axis))
            if nothing and rest.any() and not np.take(wrong, k, axis).any():
                return (
                    f"the sum over a broadcast axis is missing: only entry {k} along axis {axis} of the upstream "
                    "gradient counts"
                )
    return None


def _own_entry_only(block: Block) -> str | None:
    """A gradient that is right entry by entry, and leaves out what an entry does to the others."""
    n = len(block.analytic)
    if block.combined or any(block.paired) or block.analytic.shape != (n, n):
        return None
    if not block.is_like(block.numeric * np.eye(n), block.allowed):
        return None
    return "only the diagonal of the Jacobian is there: what an entry of the input does to other entries is left out"


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
    if np.sum(wrong) < _FEW or np.any(np.abs(block.numeric[wrong]) < np.abs(block.analytic[wrong])):
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
        side, bound = ("below", high) if low == -np.inf else ("above", low)
        return f"the gradient is clipped: kept {side} {bound:.6g} in all {int(wrong.sum())} wrong entries"
    return f"the gradient is clipped to [{low:.6g}, {high:.6g}] in all {int(wrong.sum())} wrong entries"


def _clipped_norm(block: Block) -> str | None:
    """For several cotangents, gradients of the right direction and of one norm where they would have a larger one."""
    if not block.combined:
        return None
    own, right = np.linalg.norm(block.analytic, axis=1), np.linalg.norm(block.numeric, axis=1)
    cut = block.wrong.any(axis=1)
    if cut.sum() < _FEW or np.any(right[cut] <= own[cut]) or np.ptp(right[cut]) <= 1e-6 * right.max():
        return None
    bound = float(np.median(own[cut]))
    scaled = block.numeric * np.where(cut, bound / np.where(right > 0, right, 1.0), 1.0)[:, None]
    if np.any(right[~cut] > bound * (1 + 1e-6)) or not block.is_like(scaled, block.allowed):
        return None
    return f"the gradient is clipped to a norm of {bound:.6g}"


def _mean_for_sum(block: Block) -> str | None:
    """One factor that is a number of entries that are summed, or the inverse of one."""
    factor = _factor(block)
    if factor is None or block.y_shape is None or factor == 0 or not _is_everywhere(block):
        return None
    broadcast = prod(block.y_shape) > prod(block.shape)
    for axes, count in _counts(block):
        where = ", ".join(map(str, axes))
        named = f"ax{'is' if len(axes) == 1 else 'es'} {where} of the {'output' if broadcast else 'input'}"
        if _is(factor * count, 1.0):
            return (
                f"analytic = numeric / {count}, and {count} is how many entries {named} {_has(axes)}: the mean over "
                + ("a broadcast axis where the sum belongs" if broadcast else "them where the function takes the sum")
            )
        if _is(factor, float(count)) and not broadcast:
            return (
                f"analytic = {count} x numeric, and {count} is how many entries {named} {_has(axes)}: the gradient of "
                "a sum where the function takes the mean"
            )
    return None


def _has(axes: tuple[int, ...]) -> str:
    return "has" if len(axes) == 1 else "have"


def _is(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= 1e-5 * abs(wanted)


def _counts(block: Block) -> Iterator[tuple[tuple[int, ...], int]]:
    """Axes that may have been summed over, and how many entries they have; 2 may be any forgotten factor."""
    assert block.y_shape is not None
    if prod(block.y_shape) == prod(block.shape):
        return
    shape = max(block.y_shape, block.shape, key=prod)
    longer = [k for k, length in enumerate(shape) if length > 1]
    for size in range(len(longer), 0, -1):
        for axes in combinations(longer, size):
            count = prod(shape[k] for k in axes)
            if count > 2:
                yield axes, count


def _wrong_on_one_side(block: Block) -> str | None:
    """Entries of x that are wrong on one side of a threshold, and right on the other."""
    if any(block.paired):
        return None
    columns: NDArray[np.bool_] = np.any(block.wrong, axis=0)
    side = _side(block.base, columns)
    if side is None:
        return None
    factor = _factor(block)
    also = "" if factor is None else f", analytic = {factor:.6g} x numeric" if factor else ", where analytic = 0"
    wrong, right = int(columns.sum()), int((~columns).sum())
    return f"wrong only where {side}: in all {wrong} entries there{also}, and right in the other {right}"


def _side(values: Reals, wrong: NDArray[np.bool_]) -> str | None:
    if min(wrong.sum(), (~wrong).sum()) < _FEW:
        return None
    for name, x in (("x", values), ("|x|", np.abs(values))):
        for relation, sign in (("<", 1.0), (">", -1.0)):
            edge, beyond = float(np.max(sign * x[wrong])), float(np.min(sign * x[~wrong]))
            if edge <= 0 <= beyond and edge < beyond and name == "x":
                return f"x {relation} 0"
            if edge < beyond and len(values) >= _SIDES:
                return f"{name} {relation}= {sign * edge:.3g}"
    return None


def _factor(block: Block) -> float | None:
    """The one factor between analytic and numeric in all wrong entries, or None."""
    wrong = block.wrong
    analytic, numeric, allowed = block.analytic[wrong], block.numeric[wrong], block.allowed[wrong]
    if len(analytic) < _FEW or np.any(np.abs(numeric) <= allowed):
        return None
    factor = float(np.median(analytic / numeric))
    if np.any(np.abs(analytic - factor * numeric) > allowed * max(1.0, abs(factor))):
        return None
    return 0.0 if np.all(np.abs(analytic) <= allowed) else factor


def _is_everywhere(block: Block) -> bool:
    """Whether all entries that are not zero are wrong."""
    return bool(np.all(block.wrong | (np.abs(block.numeric) <= block.allowed)))


def _constant_factor(block: Block) -> Likeness | None:
    factor = _factor(block)
    if factor is None:
        return None
    entries = f"in all {int(block.wrong.sum())} wrong entries of its Jacobian"
    if factor == 0:
        return Likeness(f"analytic = 0 {entries}", plain=not _is_everywhere(block))
    if _is(factor, -1.0):
        return Likeness(f"analytic = -numeric {entries}: the sign is flipped", plain=True)
    return Likeness(f"analytic = {factor:.6g} x numeric {entries}: a constant factor", plain=True)


_RULES: tuple[Callable[[Block], str | None], ...] = (
    _surrogate, _transposed, _own_entry_only, _one_of_a_broadcast_axis, _conjugated, _clipped_norm, _mean_for_sum,
    _clipped, _wrong_on_one_side,
)  # fmt: skip
