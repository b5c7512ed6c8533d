"""Whether a constant looks like the value of a variable, or like something simple that is computed from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_ULPS = 16  # of the largest entry, that a constant may be off what it looks like
_DIGITS = 5  # from which on the decimal digits of a single number are no accident

_ENTRYWISE: dict[str, Callable[[Array], Array]] = {
    "{} ** 2": np.square,
    "{} ** 3": lambda v: v**3,
    "1 / {}": np.reciprocal,
    "tf.abs({})": np.abs,
    "tf.sqrt({})": np.sqrt,
    "tf.exp({})": np.exp,
    "tf.math.log({})": np.log,
    "tf.sin({})": np.sin,
    "tf.cos({})": np.cos,
    "tf.tanh({})": np.tanh,
    "tf.sigmoid({})": lambda v: 1 / (1 + np.exp(-v)),
    "tf.math.softplus({})": lambda v: np.logaddexp(v, 0.0),
    "tf.nn.relu({})": lambda v: np.maximum(v, 0.0),
    "tf.nn.softmax({})": lambda v: np.exp(v - v.max(-1, keepdims=True)) / _sums(np.exp(v - v.max(-1, keepdims=True))),
    "{0} / tf.norm({0})": lambda v: v / np.linalg.norm(v.reshape(-1)),
    "tf.math.l2_normalize({}, -1)": lambda v: v / np.sqrt(_sums(v * v)),
    "{0} - tf.reduce_mean({0})": lambda v: v - v.mean(),
}
_REDUCED: dict[str, Callable[..., Array]] = {
    "tf.reduce_sum({}{})": np.sum,
    "tf.reduce_mean({}{})": np.mean,
    "tf.reduce_max({}{})": np.max,
    "tf.reduce_min({}{})": np.min,
    "tf.norm({}{})": lambda v, axis: np.sqrt(np.sum(v * v, axis)),
    "tf.reduce_sum({}**2{})": lambda v, axis: np.sum(v * v, axis),
}


def _sums(v: Array) -> Array:
    found: Array = v.sum(-1, keepdims=True)
    return found


def looks_like(constant: Array, value: Array, name: str, *, literal: bool) -> str | None:
    """What a constant looks like, as an expression of a variable; None where it looks like nothing simple.

    Args:
        constant: Real and finite, of any shape.
        value: Of the variable.
        name: What to call it in the expression.
        literal: Whether the constant may have been written as it is, so that more entries have to fit.
    """
    if constant.dtype.kind != "f" or value.dtype.kind != "f" or not (constant.size and value.size):
        return None
    eps = max(float(np.finfo(a.dtype).eps) for a in (constant, value))
    c, v = constant.astype(np.float64), value.astype(np.float64)
    if not (np.all(np.isfinite(c)) and np.all(np.isfinite(v))):
        return None
    tells = 3 if literal else 2  # so many different entries prove something
    with np.errstate(all="ignore"):
        for text, like in _candidates(c, v, tells):
            if like.shape != c.shape or not np.all(np.isfinite(like)):
                continue
            distinct = len(np.unique(like)) >= tells or (like.size == 1 and _is_distinctive(constant))
            if distinct and np.all(np.abs(c - like) <= _ULPS * eps * np.max(np.abs(like))):
                return text.format(name)
    return None


def is_distinctive(value: Array) -> bool:
    """Whether a constant of this value can hardly be one by accident: many are zeros, ones and round numbers."""
    return bool(value.size and (np.any(value != value.flat[0]) or _is_distinctive(value)))


def _is_distinctive(value: Array) -> bool:
    shown = np.format_float_scientific(value.flat[0]) if value.dtype.kind == "f" else ""
    return len(shown.partition("e")[0].strip("-.").replace(".", "")) >= _DIGITS


def _candidates(c: Array, v: Array, tells: int) -> Iterator[tuple[str, Array]]:
    yield "{}", v
    if v.ndim > 1 and v.shape != c.shape:
        yield "tf.transpose({})", v.T
    if v.size == c.size and v.shape != c.shape:
        yield f"tf.reshape({{}}, {list(c.shape)})", v.reshape(c.shape)
    if v.shape == c.shape:
        yield from ((text, np.asarray(fn(v))) for text, fn in _ENTRYWISE.items() if v.ndim or "-1" not in text)
        yield from _linear(c, v, tells)
    if v.ndim > 1 and v.shape == c.shape:
        yield "tf.transpose({})", v.T
    if v.ndim and v.shape[1:] == c.shape and v.shape[0] <= 64:
        yield from ((f"{{}}[{k}]", row) for k, row in enumerate(v))
    for axis in (None, *range(v.ndim if v.ndim > 1 else 0)):
        shown = "" if axis is None else f", {axis}"
        yield from ((text.format("{}", shown), np.asarray(fn(v, axis))) for text, fn in _REDUCED.items())


def _linear(c: Array, v: Array, tells: int) -> Iterator[tuple[str, Array]]:
    """a * v, v + b and a * v + b, where more entries fit than there are free numbers."""
    distinct = len(np.unique(v))
    if distinct < tells:
        return
    k = np.argmax(np.abs(v))
    a = c.flat[k] / v.flat[k]
    yield f"{a:.6g} * {{}}", a * v
    b = c.flat[k] - v.flat[k]
    yield f"{{}} {'-' if b < 0 else '+'} {abs(b):.6g}", v + b
    i, j = np.argmin(v), np.argmax(v)
    if distinct > tells:
        a = (c.flat[j] - c.flat[i]) / (v.flat[j] - v.flat[i])
        b = c.flat[i] - a * v.flat[i]
        yield f"{a:.6g} * {{}} {'-' if b < 0 else '+'} {abs(b):.6g}", a * v + b
