"""Rules run on NumPy arrays: in any dtype, and for many hyperparameters at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from gradcheck.optimizers._amplified import Amplified
from gradcheck.optimizers._around import Around
from gradcheck.optimizers._clipped import Clipped, clips_by_norm
from gradcheck.optimizers._rule import Rule

Array = NDArray[Any]
# Where hyperparameters enter: as factors, as 1 less them, and in corrections made in float64.
PLACES = ("number", "rest", "wide")
FACTORS, CORRECTIONS = PLACES[:2], PLACES[2:]

Adjust = Callable[[Array], Array]


def rounded_to(dtype: Any) -> Adjust:
    """The nearest numbers of a dtype."""
    return lambda numbers: numbers.astype(dtype).astype(np.float64)


def nudged_in(dtype: Any) -> Adjust:
    """Numbers as far off as rounding to a dtype can bring them."""
    return lambda numbers: numbers + np.where(numbers == 0, 0.0, unit_of(numbers, eps_of(dtype) / 2))


def eps_of(dtype: Any) -> float:
    """The distance from 1 to the next number of a NumPy dtype, bfloat16 included."""
    found: Any = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    return float(found.eps)


def unit_of(numbers: Any, eps: Any) -> Array:
    """The distance to the next number of a dtype that has `eps` at 1; that of tiny numbers at 0."""
    sizes = np.maximum(abs(np.nan_to_num(numbers)), np.finfo(np.float32).tiny)
    unit: Array = eps * 2.0 ** np.floor(np.log2(sizes))
    return unit


@dataclass(frozen=True, slots=True)
class ArrayMoment:
    """A step in NumPy's arithmetic.

    Hyperparameters are numbers, or arrays of shape [k, 1] beside entries of shape [k, n]. Numbers are adjusted by `by`
    in the places of `adjusted`: some optimizers hold a number in the dtype of the weights here and not there.
    """

    count: int
    adjusted: tuple[str, ...] = ()
    by: Adjust | None = None

    def number(self, value: Any) -> Any:
        return self._value(value, "number")

    def rest(self, value: Any) -> Any:
        return 1 - self._value(value, "rest")

    def wide(self, value: Any) -> Any:
        return np.float64(self._value(value, "wide"))  # which divides by 0 as tensors do

    def narrow(self, value: Any) -> Any:
        return float(value) if np.ndim(value) == 0 else value

    def root(self, value: Any) -> Any:
        return np.sqrt(value)

    def clip(self, value: Any, limit: Any) -> Any:
        limit = self.number(limit)
        return np.clip(value, -limit, limit)

    def larger(self, one: Any, other: Any) -> Any:
        return np.maximum(one, other)

    def at_first(self, then: Any, otherwise: Any) -> Any:
        return then if self.count == 1 else otherwise

    def at_each(self, steps: int, then: Any, otherwise: Any) -> Any:
        return otherwise if self.count % steps else then

    def counting(self, count: int) -> ArrayMoment:
        return replace(self, count=count)

    def _value(self, value: Any, where: str) -> Any:
        found = value(self.count - 1) if callable(value) else value
        if where in self.adjusted and self.by:
            found = self.by(np.asarray(found, np.float64))
        return found if type(found) is float or np.ndim(found) else float(found)


class Replay:
    """A rule on the entries of all variables, laid end to end.

    Args:
        rule: The rule; a hyperparameter may be an array of shape [k, 1], for k runs at once.
        start: The weights before the first step, of shape [n].
        leaf: The variable that each entry belongs to, of shape [n].
        dtype: To compute in.
        adjusted: Where hyperparameters are adjusted, of `PLACES`.
        by: How they are.
    """

    def __init__(
        self, rule: Rule, start: Array, leaf: Array, dtype: Any = np.float64, *, adjusted: Sequence[str] = (),
        by: Adjust | None = None,
    ) -> None:  # fmt: skip
        self._rule, self._leaf, self._dtype = rule, leaf, np.dtype(dtype)
        self._adjusted, self._by, self._count = tuple(adjusted), by, 0
        self._clips = clips_by_norm(rule)
        self.weights = start.astype(self._dtype)
        self._slots = {name: self._filled(value) for name, value in rule.slots().items()}

    def step(self, gradient: Array, norms: Array) -> Array:
        """The weights after a step.

        Args:
            gradient: Of shape [n].
            norms: The Euclidean norm of the whole gradient of each variable; NaN where it has none, and stays.
        """
        self._count += 1
        moment = ArrayMoment(self._count, self._adjusted, self._by)
        seen = gradient.astype(self._dtype)
        factors, before = None, (self.weights, self._slots)
        if self._clips:
            factors = _clipping(self._rule, np.nan_to_num(norms), moment)
        if factors is not None:
            seen = (seen * factors[..., self._leaf].astype(self._dtype)).astype(self._dtype)
        with np.errstate(all="ignore"):  # a hypothesis may divide by zero: it then explains nothing
            weights, self._slots = self._rule.update(moment, self.weights, seen, self._slots)
        self.weights = np.asarray(weights)
        if np.isnan(norms).any():
            stays = np.isnan(norms)[self._leaf]
            self.weights = np.where(stays, before[0], self.weights)
            self._slots = {name: np.where(stays, before[1][name], slot) for name, slot in self._slots.items()}
        return self.weights

    def _filled(self, value: Any) -> Array:
        start = ArrayMoment(1, self._adjusted, self._by).number(value)
        filled: Array = np.zeros_like(self.weights) + np.asarray(start, self._dtype)
        return filled


def _clipping(rule: Any, norms: Array, moment: ArrayMoment) -> Array | None:
    """For each variable the factor by which clipping by norm scales its gradient, or None where there is none."""
    factors = None
    while isinstance(rule, Around):
        if isinstance(rule, Amplified):
            norms = norms * abs(moment.number(rule.factor))
        if isinstance(rule, Clipped) and rule.by != "value":
            now = norms if factors is None else norms * factors
            size = np.sqrt((now**2).sum(-1, keepdims=True)) if rule.by == "global norm" else now
            limit = np.asarray(moment.number(rule.limit))
            above = np.maximum(size, limit)
            scale = np.divide(limit, above, out=np.zeros(np.shape(above)), where=above > 0) + np.zeros_like(norms)
            factors = scale if factors is None else factors * scale
        rule = rule.rule
    return factors
