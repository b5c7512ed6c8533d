"""Digits lost in one op: its error against float64, beside the errors that its inputs had already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

UNITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "complex64": 2.0**-24}
_SMALLEST = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126, "complex64": 2.0**-126}
# A sum of many may come near 0 by chance: an entry in 10^d loses d digits then. What is lost more often than this
# many times chance is lost for a reason.
_CHANCE = 20.0
_LEAST = 1.0
# A term that counts for nothing in more than this share of the entries is absorbed; so much of a result at its limit,
# saturated.
_SHARE = 0.5
_SATURATES = frozenset({"Tanh", "Sigmoid", "Erf", "Softmax"})
_ADDS = frozenset({"Add", "AddV2", "Sub"})
_SUMS = _ADDS | {"AddN", "Sum", "Mean", "MatMul", "BatchMatMulV2", "BiasAdd", "Cumsum", "Einsum", "L2Loss"}


@dataclass(frozen=True, slots=True)
class Lost:
    """Digits lost in one run of an op."""

    digits: float
    kind: str
    index: tuple[int, ...]
    value: float
    exact: float


def digits_of(dtype: str) -> float:
    """How many decimal digits a dtype has."""
    return float(-np.log10(2 * UNITS[dtype]))


def relative_error(value: Any, exact: Any) -> Any:
    """Entry by entry, at most 1."""
    with np.errstate(all="ignore"):
        error = np.abs(value - exact) / np.abs(exact)
    return np.where(value == exact, 0.0, np.minimum(np.nan_to_num(error, nan=1.0, posinf=1.0), 1.0))


def lost(op: str, dtype: str, inputs: list[tuple[Any, Any]], value: Any, exact: Any, *, by_entry: bool) -> Lost | None:
    """What an op loses, or None where that is less than a digit.

    Args:
        op: Its type.
        dtype: The narrow dtype of its output.
        inputs: For each floating input its value, and its value in float64.
        value: The output.
        exact: The output in float64.
        by_entry: Whether each entry of the output is made of the entries of the inputs that are broadcast to it.
    """
    if not value.size or value.shape != exact.shape or not np.all(np.isfinite(value)):
        return None
    unit = UNITS[dtype]
    error = relative_error(value, exact)
    inherited = np.full(value.shape, unit)
    for own, wide in inputs:
        before = relative_error(own, wide)
        before = (
            np.broadcast_to(before, value.shape) if by_entry else np.sqrt(np.mean(before**2)) if before.size else 0.0
        )
        inherited = np.maximum(inherited, before)
    with np.errstate(divide="ignore"):
        digits = np.clip(np.log10(error / inherited), 0.0, digits_of(dtype))
    found = _beyond_chance(digits)
    if found is None:
        return _without_an_effect(op, dtype, inputs, value, exact, by_entry=by_entry)
    return _lost(float(digits[found]), _kind(op, dtype, inputs, value[found], exact[found]), found, value, exact)


def _lost(digits: float, kind: str, index: tuple[int, ...], value: Any, exact: Any) -> Lost:
    return Lost(digits, kind, index, float(np.real(value[index])), float(np.real(exact[index])))


def _beyond_chance(digits: Any) -> tuple[int, ...] | None:
    """The entry that loses most, of those that lose more than sums that come near 0 by chance."""
    flat = digits.ravel()
    order = np.argsort(-flat, kind="stable")
    ranks = np.arange(1, flat.size + 1) / flat.size
    beyond = (flat[order] >= _LEAST) & (ranks >= _CHANCE * 10.0 ** -flat[order])
    if not beyond.any():
        return None
    return tuple(int(i) for i in np.unravel_index(order[int(np.argmax(beyond))], digits.shape))


def _kind(op: str, dtype: str, inputs: list[tuple[Any, Any]], value: Any, exact: Any) -> str:
    if 0 < abs(exact) < _SMALLEST[dtype] and abs(value) < _SMALLEST[dtype]:
        return "underflow"
    largest = max((float(np.max(np.abs(own), initial=0.0)) for own, _ in inputs), default=0.0)
    return "cancellation" if op in _SUMS and abs(exact) < 0.5 * largest else "rounding"


def _without_an_effect(
    op: str, dtype: str, inputs: list[tuple[Any, Any]], value: Any, exact: Any, *, by_entry: bool
) -> Lost | None:
    """Results that are right to the last digit, and yet have forgotten an input."""
    if op in _SATURATES:
        at_limit = (np.abs(value) == 1.0) & (exact != value)
        if np.mean(at_limit) > _SHARE:
            index = tuple(int(i) for i in np.unravel_index(int(np.argmax(at_limit)), value.shape))
            return _lost(digits_of(dtype), "saturation", index, value, exact)
    if op in _ADDS and by_entry and len(inputs) == 2:
        signs = (1.0, -1.0 if op == "Sub" else 1.0)
        for own, other in ((0, 1), (1, 0)):
            counts = np.broadcast_to(inputs[other][0], value.shape) != 0
            ignored = counts & (value == signs[own] * inputs[own][0]) & (value != exact)
            if counts.any() and np.sum(ignored) > _SHARE * np.sum(counts):
                index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ignored)), value.shape))
                return _lost(digits_of(dtype), "absorption", index, value, exact)
    return None
