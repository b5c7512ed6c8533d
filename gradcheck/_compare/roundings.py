"""What rounding moves: of hyperparameters, of weights and steps, and of the factors of each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from gradcheck import optimizers
from gradcheck._compare.arrays import CORRECTIONS, FACTORS, Array, Replay, eps_of, nudged_in, rounded_to, unit_of
from gradcheck._compare.deviations import core_of, nest_of, number_of, with_nest
from gradcheck.optimizers._rule import Rule

EPS, EPS32 = (float(np.finfo(dtype).eps) for dtype in (np.float64, np.float32))
ULPS = 4  # of float32, by which a hyperparameter may be off; several that are rounded come to less
FOREIGN = 8  # how much more an optimizer may round than the reference, where only the reference is measured
_PER_STEP = 8  # roundings of float64, of a weight and of its step
_COUNTS = ("dampening_from", "steps", "by")  # whole numbers, which nothing rounds


class Hyperparameters:
    """How far a rule moves when its hyperparameters are rounded to the narrowest dtype of the variables.

    Where no rule is known, it is a share of the way that the weights go, as for a learning rate.
    """

    def __init__(self, rule: Rule | None, start: Array, leaf: Array, dtypes: Sequence[Any]) -> None:
        self.off, self._before = np.zeros(len(start)), start
        self._exact: Replay | None = None
        self._share = ULPS / 2 * eps_of(max(dtypes, key=eps_of))
        if rule is not None:
            by = nudged_in(max(dtypes, key=eps_of))
            self._exact = Replay(rule, start, leaf)
            self._nudged = [Replay(rule, start, leaf, adjusted=places, by=by) for places in (FACTORS, CORRECTIONS)]

    def step(self, gradient: Array, norms: Array, weights: Array) -> None:
        """`weights` are the optimizer's after the step."""
        if self._exact is not None:
            exact = self._exact.step(gradient, norms)
            apart = sum(abs(replay.step(gradient, norms) - exact) for replay in self._nudged)
            self.off = np.maximum(self.off, np.nan_to_num(apart))
        else:
            with np.errstate(invalid="ignore"):
                self.off = self.off + self._share * np.nan_to_num(abs(weights - self._before))
            self._before = weights


class Units:
    """How far a rule moves when any of its hyperparameters is a few units of float32 off, wherever it enters.

    Args:
        rule: The rule, whose weights in float64 are `weights`.
        start: The weights before the first step, of shape [n].
        leaf: The variable that each entry belongs to, of shape [n].
        rounded: Where the rule itself has its hyperparameters in float32.
    """

    def __init__(self, rule: Rule, start: Array, leaf: Array, rounded: Sequence[str] = ()) -> None:
        self.off = np.zeros(len(start))
        self._replay = Replay(_each_off(rule), start, leaf, adjusted=rounded, by=rounded_to(np.float32))
        self.weights = start

    def step(self, gradient: Array, norms: Array) -> None:
        rows = np.atleast_2d(self._replay.step(gradient, norms))
        with np.errstate(invalid="ignore"):
            apart = abs(rows[1:] - rows[0]).max(0, initial=0.0)
        self.weights, self.off = rows[0], np.maximum(self.off, np.nan_to_num(apart, nan=np.inf, posinf=np.inf))


class Steps:
    """How far apart runs in float64 may be whose learning rates and corrections are computed in float32 at each step.

    A schedule's value may be two units off, and one more for each four steps, for its decay is rounded and raised to
    a power. A bias correction 1 - βᵗ is off by a unit of βᵗ.
    """

    def __init__(self, rule: Rule) -> None:
        self._rate = 1.0 if callable(rule.learning_rate) else 0.0
        core: Any = core_of(rule)
        self._corrected: list[tuple[float, float]] = []
        if isinstance(core, optimizers.Adam) and core.bias_correction:
            self._corrected = [(float(core.beta_1), EPS32 / 2), (float(core.beta_2), EPS32 / 4)]  # a root of the second
        kept = 1 - float(getattr(core, "momentum", 0.0))
        self._lasts = 1 / max(kept, 1e-3)  # a push goes on in the velocity
        self._count, self.off = 0, np.zeros(1)

    def step(self, moved: Array) -> None:
        """`moved` is what the weights have moved at this step."""
        self._count += 1
        share = self._rate * EPS32 * (2 + self._count / 4)
        share += sum(unit / max(1 - beta**self._count, EPS32) for beta, unit in self._corrected)
        self.off = self.off + share * self._lasts * np.nan_to_num(abs(moved))


class Twin:
    """The rounding of float64 runs, where a wider dtype to see it in is missing: that of float32, scaled."""

    def __init__(self, rule: Rule | None, start: Array, leaf: Array) -> None:
        self.rounding = np.zeros(len(start))
        self._pair = (Replay(rule, start, leaf, np.float32), Replay(rule, start, leaf)) if rule is not None else None

    def step(self, gradient: Array, norms: Array) -> None:
        if self._pair is not None:
            narrow, wide = (replay.step(gradient, norms) for replay in self._pair)
            self.rounding = np.maximum(self.rounding, np.nan_to_num(FOREIGN * EPS / EPS32 * abs(narrow - wide)))


def of_a_step(moved: Array, before: Array) -> Array:
    """What float64 may round in a step from `before` to `moved`."""
    with np.errstate(invalid="ignore"):
        roundings = _PER_STEP * EPS * (abs(moved) + abs(moved - before))
    return np.nan_to_num(roundings, posinf=np.inf)


def _each_off(rule: Rule) -> Any:
    """As it is in the first row, and with one hyperparameter off in each of the others, downwards, to be in range."""
    nest = nest_of(rule)
    found = [
        (place, field.name, number_of(getattr(each, field.name)))
        for place, each in enumerate(nest)
        for field in fields(each)
        if field.name not in _COUNTS and _is_number(getattr(each, field.name))
    ]
    found = [one for one in found if one[2]]
    rows = 1 + len(found) + callable(rule.learning_rate)
    changes: list[dict[str, Any]] = [{} for _ in nest]
    for row, (place, name, number) in enumerate(found, start=1):
        column = np.full((rows, 1), number)
        column[row] -= ULPS * unit_of(number, EPS32)
        changes[place][name] = column
    if callable(rule.learning_rate):
        factors = np.ones((rows, 1))
        factors[-1] -= ULPS * EPS32
        changes[-1]["learning_rate"] = optimizers.Scaled(rule.learning_rate, factors)
    return with_nest([replace(each, **change) for each, change in zip(nest, changes, strict=True)])


def _is_number(value: Any) -> bool:
    return not isinstance(value, (bool, str, Rule)) and not callable(value)
