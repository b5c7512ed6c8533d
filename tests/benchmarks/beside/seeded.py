"""Gradients that are wrong in one of fifteen ways, at several sizes and dtypes, and right ones that look suspicious."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np

from .problems import Ops

SIZES = (1, 10, 1000, 100_000)
UNITS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7}
Build = Callable[[Ops, int, str], Callable[[Any], Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A function of about so many entries, in float64, float32 or bfloat16.

    Attributes:
        name: What to call it.
        build: Of a library, a number of entries and a dtype.
        wrong: Whether it must be found wrong.
        order: Of the derivative that is meant.
        relative: Size of the defect beside the derivative; below a unit of rounding of a dtype it is none.
        least: Entries that it needs.
    """

    name: str
    build: Build
    wrong: bool = True
    order: int = 1
    relative: float = 1.0
    least: int = 1

    def exists(self, entries: int, dtype: str) -> bool:
        """Whether there is such a case at this size, in this dtype."""
        return entries >= self.least and self.relative > UNITS[dtype]


def case(name: str) -> Case:
    """By its name."""
    (found,) = (c for c in CASES if c.name == name)
    return found


def inputs_of(name: str, entries: int, seed: int) -> tuple[Any, ...]:
    """One input: magnitudes from 0.5 to 1.5, the first negative; every second entry 0 where a kink is asked for."""
    rng = np.random.default_rng([seed, entries])
    x = rng.uniform(0.5, 1.5, entries) * rng.choice([-1.0, 1.0], entries)
    x[0] = -abs(x[0])
    if name == _KINK:
        x[::2] = 0.0
    if name == _TRANSPOSED:
        x = x[: entries // _width(entries) * _width(entries)].reshape(-1, _width(entries))
    return (x,)


_KINK = "right: relu at 0"
_TRANSPOSED = "transposed"


def _changed(change: Callable[[Ops, Any, Any], Any]) -> Build:
    """x sin(x) with a gradient that is changed: of the library, x and the right one."""

    def build(ops: Ops, entries: int, dtype: str) -> Callable[[Any], Any]:
        def fn(x: Any) -> Any:
            return x * ops.sin(x)

        return ops.custom(fn, lambda x, up: change(ops, x, ops.vjp(fn, x, up)))

    return build


def _one_entry(ops: Ops, entries: int, dtype: str) -> Callable[[Any], Any]:
    factors = np.ones(entries)
    factors[entries // 2] = 1.1
    return _changed(lambda ops, x, g: g * ops.like(factors, x))(ops, entries, dtype)


def _width(entries: int) -> int:
    return min(isqrt(entries), 30)


def _transposed(ops: Ops, entries: int, dtype: str) -> Callable[[Any], Any]:
    k = _width(entries)
    weights = np.sin(np.arange(1.0, k * k + 1)).reshape(k, k)
    return ops.custom(lambda x: x @ ops.like(weights, x), lambda x, up: up @ ops.like(weights, x))


def _broadcast(ops: Ops, entries: int, dtype: str) -> Callable[[Any], Any]:
    weights = np.cos(np.arange(2.0 * entries)).reshape(2, entries)
    return ops.custom(lambda x: x * ops.like(weights, x), lambda x, up: up * ops.like(weights, x))


def _upstream(ops: Ops, entries: int, dtype: str) -> Callable[[Any], Any]:
    return ops.custom(ops.sin, lambda x, up: ops.vjp(ops.sin, x, up * 0 + 1))


def _dropped(ops: Ops, entries: int, dtype: str) -> Callable[[Any], Any]:
    return ops.custom(lambda x: x * ops.sin(x), lambda x, up: up * ops.sin(x))


def _stopped(ops: Ops, entries: int, dtype: str) -> Callable[[Any], Any]:
    return lambda x: x * ops.stop(ops.sin(x))


def _branch(ops: Ops, entries: int, dtype: str) -> Callable[[Any], Any]:
    return lambda x: ops.where(x > 0, x * ops.sqrt(x), x)


def _second(factor: float) -> Build:
    def build(ops: Ops, entries: int, dtype: str) -> Callable[[Any], Any]:
        slope = ops.custom(ops.cos, lambda x, up: -factor * up * ops.sin(x))
        return ops.custom(ops.sin, lambda x, up: up * slope(x))

    return build


def _duplicates(ops: Ops, entries: int, dtype: str) -> Callable[[Any], Any]:
    """Entry 0 is taken twice; its gradient is the last one, not the sum."""
    twice, last = [*range(entries), 0], [entries, *range(1, entries)]
    return ops.custom(lambda x: ops.take(x, twice), lambda x, up: ops.take(up, last))


def _cancelling(ops: Ops, entries: int, dtype: str) -> Callable[[Any], Any]:
    """Half of the digits are lost."""
    away = float(2 ** round(-np.log2(UNITS[dtype]) / 2))
    return lambda x: (x + away) - away


CASES = (
    Case(name="factor 2", build=_changed(lambda ops, x, g: 2 * g)),
    Case(name="factor 1 + 1e-3", build=_changed(lambda ops, x, g: 1.001 * g), relative=1e-3),
    Case(name="factor 1 + 1e-6", build=_changed(lambda ops, x, g: 1.000001 * g), relative=1e-6),
    Case(name="sign", build=_changed(lambda ops, x, g: -g)),
    Case(name="one entry 10 % too large", build=_one_entry, relative=0.1),
    Case(name=_TRANSPOSED, build=_transposed, least=4),
    Case(name="not summed over a broadcast axis", build=_broadcast),
    Case(name="upstream gradient forgotten", build=_upstream),
    Case(name="halved where x < 0", build=_changed(lambda ops, x, g: ops.where(x < 0, 0.5 * g, g))),
    Case(name="a term of a product dropped", build=_dropped),
    Case(name="stop_gradient, not meant", build=_stopped),
    Case(name="NaN from the branch not taken", build=_branch),
    Case(name="second derivative 10 % too large", build=_second(1.1), order=2, relative=0.1),
    Case(name="backward with noise of 1e-3", build=_changed(lambda ops, x, g: g * (1 + 1e-3 * ops.noise(x))),
         relative=1e-3),
    Case(name="duplicate index overwritten", build=_duplicates),
    Case(name="nothing wrong", build=_changed(lambda ops, x, g: g), wrong=False),
    Case(name="right: second derivative", build=_second(1.0), wrong=False, order=2),
    Case(name=_KINK, build=lambda ops, entries, dtype: ops.relu, wrong=False),
    Case(name="right: half of the digits cancel", build=_cancelling, wrong=False),
    Case(name="right: stop_gradient, meant", build=_stopped, wrong=False),
)  # fmt: skip
