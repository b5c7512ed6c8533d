"""Digits lost in one op: its error against float64, beside the errors that its inputs had already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

UNITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "complex64": 2.0**-24}
_SMALLEST = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126, "complex64": 2.0**-126}
# A sum may come near 0 by chance: an entry in 10^d loses d digits then. What is lost more often than this many times
# chance may be lost for a reason. It is where chance would do it with such a probability at most: in an op that works
# entry by entry, such as a difference; and in sums of many, of which more is computed and less is wrong.
_CHANCE = 20.0
_RARE_BY_ENTRY, _RARE = 1e-4, 1e-6
# How many digits a single entry of a sum of many loses before it can be more than chance.
_LEAST_OF_MANY = 3.0
# Errors are so many times smaller in float64 as it is finer than the dtype: what is not larger than that many of them
# is 0 but for rounding.
_ZERO = 100.0
LEAST = 1.0
# A term that counts for nothing in more than this share of the entries is absorbed; so much of a result at its limit,
# saturated.
_SHARE = 0.5
_SATURATES = frozenset({"Tanh", "Sigmoid", "Erf", "Softmax"})
_ADDS = frozenset({"Add", "AddV2", "Sub"})
_SUMS = _ADDS | {"AddN", "Sum", "Mean", "MatMul", "BatchMatMulV2", "BiasAdd", "Cumsum", "Einsum", "L2Loss"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """An output of an op beside what it is in float64.

    Attributes:
        op: The type of the op.
        dtype: The narrow dtype of the output.
        inputs: For each floating input its value, and its value in float64.
        value: The output.
        exact: The output in float64.
        by_entry: Whether each entry of the output is made of the entries of the inputs that are broadcast to it.
    """

    op: str
    dtype: str
    inputs: list[tuple[Any, Any]]
    value: Any
    exact: Any
    by_entry: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """Digits lost in one run of an op.

    Attributes:
        digits: In the worst entry.
        kind, index, value, exact: As `Loss` has them.
        certain: Whether that is no chance, whoever takes the result.
        absorbed: Which input counts for nothing, where that is the kind.
    """

    digits: float
    kind: str
    index: tuple[int, ...]
    value: float
    exact: float
    certain: bool = True
    absorbed: int | None = None


def digits_of(dtype: str) -> float:
    """How many decimal digits a dtype has."""
    return float(-np.log10(2 * UNITS[dtype]))


def relative_error(value: Any, exact: Any) -> Any:
    """Entry by entry, at most 1."""
    with np.errstate(all="ignore"):
        error = np.abs(value - exact) / np.abs(exact)
    return np.where(value == exact, 0.0, np.minimum(np.nan_to_num(error, nan=1.0, posinf=1.0), 1.0))


def is_zero(value: Any, exact: Any, unit: float) -> Any:
    """For each entry whether it is 0 but for rounding, in float64 as in the dtype of that unit of rounding."""
    error = np.abs(value - exact)
    return np.abs(exact) <= _ZERO * np.maximum(error, np.sqrt(np.mean(error**2))) * (2.0**-53 / unit)


def digits_lost(beside: Beside) -> Any:
    """How many digits each entry of an op's output loses in this op; None where they cannot be compared."""
    value, exact, unit = beside.value, beside.exact, UNITS[beside.dtype]
    if not value.size or value.shape != exact.shape or not np.all(np.isfinite(value)):
        return None
    error = np.where(is_zero(value, exact, unit), 0.0, relative_error(value, exact))
    inherited = np.full(value.shape, unit)
    for own, wide in beside.inputs:
        before = relative_error(own, wide)
        if beside.by_entry:
            before = np.broadcast_to(before, value.shape)
        else:
            before = np.sqrt(np.mean(before**2)) if before.size else 0.0
        inherited = np.maximum(inherited, before)
    with np.errstate(divide="ignore"):
        return np.clip(np.log10(error / inherited), 0.0, digits_of(beside.dtype))


def lost(beside: Beside) -> Lost | None:
    """What an op loses, or None where that is less than a digit, or chance."""
    digits = digits_lost(beside)
    if digits is None:
        return None
    found = _beyond_chance(digits)
    if found is None:
        return _without_an_effect(beside)
    kind = _kind(beside, found)
    certain = kind != "underflow" and _is_rare(digits, beside.exact, _RARE_BY_ENTRY if beside.by_entry else _RARE)
    if not (certain or beside.by_entry or kind == "underflow" or digits[found] >= _LEAST_OF_MANY):
        return None
    return _lost(beside, float(digits[found]), kind, found, certain=certain)


def _lost(beside: Beside, digits: float, kind: str, index: tuple[int, ...], **more: Any) -> Lost:
    return Lost(digits, kind, index, float(np.real(beside.value[index])), float(np.real(beside.exact[index])), **more)


def _beyond_chance(digits: Any) -> tuple[int, ...] | None:
    """The entry that loses most, of those that lose more than sums that come near 0 by chance."""
    flat = digits.ravel()
    order = np.argsort(-flat, kind="stable")
    ranks = np.arange(1, flat.size + 1) / flat.size
    beyond = (flat[order] >= LEAST) & (ranks >= _CHANCE * 10.0 ** -flat[order])
    if not beyond.any():
        return None
    return tuple(int(i) for i in np.unravel_index(order[int(np.argmax(beyond))], digits.shape))


def _is_rare(digits: Any, exact: Any, probability: float) -> bool:
    """Whether chance would lose so many digits in so many entries with this probability at most.

    By Chernoff's bound on the tail of a Poisson distribution: M. Mitzenmacher and E. Upfal, Probability and Computing,
    Cambridge 2005, theorem 5.4. Entries that are the same number, as rows of an embedding are, count once.
    """
    losing = np.flatnonzero(digits.ravel() >= LEAST)
    losing = losing[np.argsort(-digits.ravel()[losing], kind="stable")]
    _, first = np.unique(exact.ravel()[losing], return_index=True)
    worst = digits.ravel()[losing][np.sort(first)]
    count, expected = np.arange(1, worst.size + 1), 4.0 * digits.size * 10.0**-worst
    bound = count - expected + count * np.log(expected / count)
    return bool(np.any((count > expected) & (bound <= np.log(probability))))


def _kind(beside: Beside, found: tuple[int, ...]) -> str:
    value, exact, smallest = beside.value[found], beside.exact[found], _SMALLEST[beside.dtype]
    if 0 < abs(exact) < smallest and abs(value) < smallest:
        return "underflow"
    largest = max((float(np.max(np.abs(own), initial=0.0)) for own, _ in beside.inputs), default=0.0)
    return "cancellation" if beside.op in _SUMS and abs(exact) < 0.5 * largest else "rounding"


def _without_an_effect(beside: Beside) -> Lost | None:
    """Results that are right to the last digit, and yet have forgotten an input."""
    op, inputs, value, exact = beside.op, beside.inputs, beside.value, beside.exact
    if op in _SATURATES:
        at_limit = (np.abs(value) == 1.0) & (exact != value)
        if np.mean(at_limit) > _SHARE:
            return _lost(beside, digits_of(beside.dtype), "saturation", _first(at_limit))
    if op in _ADDS and beside.by_entry and len(inputs) == 2:
        signs = (1.0, -1.0 if op == "Sub" else 1.0)
        for own, other in ((0, 1), (1, 0)):
            counts = np.broadcast_to(inputs[other][0], value.shape) != 0
            ignored = counts & (value == signs[own] * inputs[own][0]) & (value != exact)
            if counts.any() and np.sum(ignored) > _SHARE * np.sum(counts):
                return _lost(beside, digits_of(beside.dtype), "absorption", _first(ignored), absorbed=other)
    return None


def _first(entries: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(entries)), entries.shape))
