"""Smooth functions with derivatives in closed form: of one number, and of a vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from .exact import HAS_SPECIAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Smooth:
    """A function of one number and its derivative.

    Attributes:
        name: What to call it.
        fn: In TensorFlow, called with x and the constants.
        derivative: Called with an arithmetic, x and the constants, all exact reals.
        domain: Points are drawn from here.
        constants: As Python floats; TensorFlow rounds them to the dtype of x, and then so do we.
        special: Whether the derivative needs a function that only mpmath has.
    """

    name: str
    fn: Callable[..., Any]
    derivative: Callable[..., Any]
    domain: tuple[float, float]
    constants: tuple[float, ...] = ()
    special: bool = False


def _row(
    name: str, fn: Any, derivative: Any, domain: tuple[float, float], *constants: float, special: bool = False
) -> Smooth:
    return Smooth(name=name, fn=fn, derivative=derivative, domain=domain, constants=constants, special=special)


def _logistic(m: Any, x: Any) -> Any:
    return 1 / (1 + m.exp(-x))


def _iterated(x: Any, r: float) -> Any:
    for _ in range(5):
        x = r * x * (1 - x)
    return x


def _iterated_derivative(m: Any, x: Any, r: Any) -> Any:
    slope = 1
    for _ in range(5):
        slope *= r * (1 - 2 * x)
        x = r * x * (1 - x)
    return slope


def _deep(x: Any) -> Any:
    for _ in range(20):
        x = tf.tanh(x)
    return x


def _deep_derivative(m: Any, x: Any) -> Any:
    slope = 1
    for _ in range(20):
        x = m.tanh(x)
        slope *= 1 - x * x
    return slope


def _roots(x: Any) -> Any:
    return (x - 1) * (x - 2) * (x - 3) * (x - 4) * (x - 5)


def _roots_derivative(m: Any, x: Any) -> Any:
    total = 0
    for left_out in range(1, 6):
        product = 1
        for root in range(1, 6):
            product *= 1 if root == left_out else x - root
        total += product
    return total


SMOOTH = tuple(
    row
    for row in (
        _row("sin", tf.sin, lambda m, x: m.cos(x), (-4, 4)),
        _row("cos", tf.cos, lambda m, x: -m.sin(x), (-4, 4)),
        _row("tan", tf.tan, lambda m, x: 1 / m.cos(x) ** 2, (-1.3, 1.3)),
        _row("exp", tf.exp, lambda m, x: m.exp(x), (-5, 5)),
        _row("expm1", tf.math.expm1, lambda m, x: m.exp(x), (-2, 2)),
        _row("log", tf.math.log, lambda m, x: 1 / x, (0.01, 10)),
        _row("log1p", tf.math.log1p, lambda m, x: 1 / (1 + x), (-0.8, 3)),
        _row("sqrt", tf.sqrt, lambda m, x: 1 / (2 * m.sqrt(x)), (0.01, 10)),
        _row("rsqrt", tf.math.rsqrt, lambda m, x: -1 / (2 * x * m.sqrt(x)), (0.05, 10)),
        _row("square", tf.square, lambda m, x: 2 * x, (-10, 10)),
        _row("cube", lambda x: x**3, lambda m, x: 3 * x * x, (-3, 3)),
        _row("reciprocal", lambda x: 1 / x, lambda m, x: -1 / x**2, (0.1, 5)),
        _row("sinh", tf.sinh, lambda m, x: m.cosh(x), (-3, 3)),
        _row("cosh", tf.cosh, lambda m, x: m.sinh(x), (-3, 3)),
        _row("tanh", tf.tanh, lambda m, x: 1 / m.cosh(x) ** 2, (-3, 3)),
        _row("asinh", tf.asinh, lambda m, x: 1 / m.sqrt(1 + x * x), (-4, 4)),
        _row("acosh", tf.acosh, lambda m, x: 1 / m.sqrt(x * x - 1), (1.05, 6)),
        _row("atanh", tf.atanh, lambda m, x: 1 / (1 - x * x), (-0.95, 0.95)),
        _row("asin", tf.asin, lambda m, x: 1 / m.sqrt(1 - x * x), (-0.95, 0.95)),
        _row("acos", tf.acos, lambda m, x: -1 / m.sqrt(1 - x * x), (-0.95, 0.95)),
        _row("atan", tf.atan, lambda m, x: 1 / (1 + x * x), (-5, 5)),
        _row("atan2", lambda x, a: tf.atan2(x, a * tf.ones_like(x)), lambda m, x, a: a / (x * x + a * a), (-3, 3), 0.7),
        _row("sigmoid", tf.sigmoid, lambda m, x: _logistic(m, x) * _logistic(m, -x), (-6, 6)),
        _row("softplus", tf.math.softplus, _logistic, (-6, 6)),
        _row("swish", lambda x: x * tf.sigmoid(x), lambda m, x: _logistic(m, x) * (1 + x * _logistic(m, -x)), (-5, 5)),
        _row("erf", tf.math.erf, lambda m, x: 2 * m.exp(-x * x) / m.sqrt(m.pi), (-2.5, 2.5)),
        _row("erfc", tf.math.erfc, lambda m, x: -2 * m.exp(-x * x) / m.sqrt(m.pi), (-2, 4)),
        _row("power", lambda x, a: x**a, lambda m, x, a: a * x ** (a - 1), (0.1, 4), 2.7),
        _row("exponential of base", lambda x, a: a**x, lambda m, x, a: m.log(a) * a**x, (-3, 3), 1.3),
        _row("sin(50x)", lambda x: tf.sin(50 * x), lambda m, x: 50 * m.cos(50 * x), (-2, 2)),
        _row("chirp", lambda x: tf.sin(x * x), lambda m, x: 2 * x * m.cos(x * x), (-4, 4)),
        _row("bell", lambda x: tf.exp(-x * x), lambda m, x: -2 * x * m.exp(-x * x), (-3, 3)),
        _row("decay", lambda x: x * tf.exp(-x), lambda m, x: (1 - x) * m.exp(-x), (-2, 5)),
        _row("Runge", lambda x: 1 / (1 + 25 * x * x), lambda m, x: -50 * x / (1 + 25 * x * x) ** 2, (-1.5, 1.5)),
        _row("log cosh", lambda x: tf.math.log(tf.cosh(x)), lambda m, x: m.tanh(x), (-3, 3)),
        _row("log(1 + exp)", lambda x: tf.math.log(1 + tf.exp(x)), _logistic, (-5, 5)),
        _row("sinc", lambda x: tf.sin(x) / x, lambda m, x: (x * m.cos(x) - m.sin(x)) / (x * x), (0.05, 6)),
        _row("five roots", _roots, _roots_derivative, (0, 6)),
        _row("exp of sin", lambda x: tf.exp(tf.sin(5 * x)),
             lambda m, x: 5 * m.cos(5 * x) * m.exp(m.sin(5 * x)), (-2, 2)),
        _row("hypotenuse", lambda x: tf.sqrt(1 + x * x), lambda m, x: x / m.sqrt(1 + x * x), (-4, 4)),
        _row("large constant, small term", lambda x, a, b: a + b * tf.sin(x),
             lambda m, x, a, b: b * m.cos(x), (-3, 3), 1e6, 1e-3),
        _row("scaled by 1e-6", lambda x, a: a * tf.sin(x), lambda m, x, a: a * m.cos(x), (-3, 3), 1e-6),
        _row("scaled by 1e9", lambda x, a: a * tf.cos(x), lambda m, x, a: -a * m.sin(x), (-3, 3), 1e9),
        _row("x of 1e-8", lambda x, a: tf.sin(a * x), lambda m, x, a: a * m.cos(a * x), (-3e-8, 3e-8), 1e8),
        _row("x of 1e8", lambda x, a: tf.sin(a * x), lambda m, x, a: a * m.cos(a * x), (-3e8, 3e8), 1e-8),
        _row("log times sin", lambda x: tf.math.log(x) * tf.sin(x),
             lambda m, x: m.sin(x) / x + m.log(x) * m.cos(x), (0.1, 6)),
        _row("logit", lambda x: tf.math.log(x / (1 - x)), lambda m, x: 1 / (x * (1 - x)), (0.02, 0.98)),
        _row("entropy", lambda x: -x * tf.math.log(x) - (1 - x) * tf.math.log(1 - x),
             lambda m, x: m.log((1 - x) / x), (0.02, 0.98)),
        _row("20 x tanh", _deep, _deep_derivative, (-3, 3)),
        _row("logistic map", _iterated, _iterated_derivative, (0.05, 0.95), 3.7),
        _row("sin(3000x)", lambda x: tf.sin(3000 * x), lambda m, x: 3000 * m.cos(3000 * x), (-2, 2)),
        _row("time of day", lambda x, a: tf.sin(a * x), lambda m, x, a: a * m.cos(a * x), (1.6e9, 1.8e9), 7.27e-5),
        _row("two scales", lambda x, a: tf.sin(x) + a * tf.sin(200 * x),
             lambda m, x, a: m.cos(x) + 200 * a * m.cos(200 * x), (-2, 2), 1e-3),
        _row("1 - cos", lambda x: 1 - tf.cos(x), lambda m, x: m.sin(x), (0.001, 0.1)),
        _row("logistic density", lambda x: tf.exp(x) / (1 + tf.exp(x)) ** 2,
             lambda m, x: _logistic(m, x) * _logistic(m, -x) * (1 - 2 * _logistic(m, x)), (-5, 5)),
        _row("near a pole", lambda x, a: 1 / (x - a), lambda m, x, a: -1 / (x - a) ** 2, (1.002, 1.1), 1.0),
        _row("lgamma", tf.math.lgamma, lambda m, x: m.psi(0, x), (0.2, 8), special=True),
        _row("digamma", tf.math.digamma, lambda m, x: m.psi(1, x), (0.5, 8), special=True),
        _row("erfinv", tf.math.erfinv,
             lambda m, x: m.sqrt(m.pi) / 2 * m.exp(m.erfinv(x) ** 2), (-0.95, 0.95), special=True),
        _row("Bessel I0", tf.math.bessel_i0, lambda m, x: m.besseli(1, x), (-4, 4), special=True),
        _row("igamma", lambda x, a: tf.math.igamma(a * tf.ones_like(x), x),
             lambda m, x, a: m.exp(-x) * x ** (a - 1) / m.gamma(a), (0.1, 6), 2.3, special=True),
    )
    if HAS_SPECIAL or not row.special
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Coupled:
    """A function of a vector, and the gradient of the sum of its outputs with weights.

    Attributes:
        name: What to call it.
        fn: In TensorFlow.
        gradient: Called with an arithmetic, exact x and exact weights of the outputs.
        scalar: Whether the output is one number.
        domain: Entries are drawn from here.
    """

    name: str
    fn: Callable[[Any], Any]
    gradient: Callable[[Any, Sequence[Any], Sequence[Any]], list[Any]]
    scalar: bool = True
    domain: tuple[float, float] = (-2, 2)


def _softmax(m: Any, x: Sequence[Any]) -> list[Any]:
    powers = [m.exp(v) for v in x]
    total = sum(powers)
    return [p / total for p in powers]


def _weighted_softmax(m: Any, x: Sequence[Any], w: Sequence[Any]) -> list[Any]:
    parts = _softmax(m, x)
    mean = sum(p * v for p, v in zip(parts, w, strict=True))
    return [p * (v - mean) for p, v in zip(parts, w, strict=True)]


def _log_softmax(m: Any, x: Sequence[Any], w: Sequence[Any]) -> list[Any]:
    total = sum(w)
    return [v - total * p for p, v in zip(_softmax(m, x), w, strict=True)]


def _norm(m: Any, x: Sequence[Any], w: Sequence[Any]) -> list[Any]:
    size = m.sqrt(sum(v * v for v in x))
    return [w[0] * v / size for v in x]


def _product(m: Any, x: Sequence[Any], w: Sequence[Any]) -> list[Any]:
    whole = w[0]
    for v in x:
        whole *= v
    return [whole / v for v in x]


def _neighbours(m: Any, x: Sequence[Any], w: Sequence[Any]) -> list[Any]:
    padded = [0, *x, 0]
    return [w[0] * (padded[i] + padded[i + 2]) for i in range(len(x))]


def _running(m: Any, x: Sequence[Any], w: Sequence[Any]) -> list[Any]:
    sums, total = [], 0
    for v in x:
        total += v
        sums.append(total)
    gradient, behind = [], 0
    for s, v in zip(reversed(sums), reversed(w), strict=True):
        behind += v * m.cos(s)
        gradient.append(behind)
    return gradient[::-1]


def _normalized(m: Any, x: Sequence[Any], w: Sequence[Any]) -> list[Any]:
    size = m.sqrt(sum(v * v for v in x))
    along = sum(v * u for v, u in zip(x, w, strict=True)) / size**3
    return [u / size - v * along for v, u in zip(x, w, strict=True)]


def _variance(m: Any, x: Sequence[Any], w: Sequence[Any]) -> list[Any]:
    mean = sum(x) / len(x)
    return [2 * w[0] * (v - mean) / len(x) for v in x]


def _log_size(m: Any, x: Sequence[Any], w: Sequence[Any]) -> list[Any]:
    size = 1 + sum(v * v for v in x)
    return [2 * w[0] * v / size for v in x]


def _mean_of_cubes(m: Any, x: Sequence[Any], w: Sequence[Any]) -> list[Any]:
    return [3 * w[0] * v * v / len(x) for v in x]


COUPLED = (
    Coupled(name="logsumexp", fn=tf.reduce_logsumexp, gradient=lambda m, x, w: [w[0] * p for p in _softmax(m, x)]),
    Coupled(name="softmax", fn=tf.nn.softmax, gradient=_weighted_softmax, scalar=False),
    Coupled(name="log_softmax", fn=tf.nn.log_softmax, gradient=_log_softmax, scalar=False),
    Coupled(name="norm", fn=tf.norm, gradient=_norm),
    Coupled(name="product", fn=tf.reduce_prod, gradient=_product, domain=(0.8, 1.25)),
    Coupled(name="neighbours", fn=lambda x: tf.reduce_sum(x[1:] * x[:-1]), gradient=_neighbours),
    Coupled(name="sin of cumsum", fn=lambda x: tf.sin(tf.cumsum(x)), gradient=_running, scalar=False),
    Coupled(name="normalized", fn=lambda x: x / tf.norm(x), gradient=_normalized, scalar=False),
    Coupled(name="variance", fn=tf.math.reduce_variance, gradient=_variance, domain=(9.0, 12.0)),
    Coupled(name="log size", fn=lambda x: tf.math.log(1 + tf.reduce_sum(x * x)), gradient=_log_size),
    Coupled(name="mean of cubes", fn=lambda x: tf.reduce_mean(x**3), gradient=_mean_of_cubes),
)


def points(row: Smooth, count: int, rng: np.random.Generator, dtype: Any) -> Any:
    """Points of the domain: mostly random, some of them the round numbers that people write."""
    low, high = row.domain
    values = rng.uniform(low, high, count)
    round_ones = [v for v in (0.0, 0.5, 1.0, -1.0, 2.0, 0.25) if low < v < high][: max(1, count // 6)]
    if high - low < 100:  # where 0.5 is an ordinary number
        values[: len(round_ones)] = round_ones
    return values.astype(dtype)
