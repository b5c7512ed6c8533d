"""The same functions for every library, from a few operations that all of them have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

SIZES = ("small", "medium", "large")


class Ops(Protocol):
    """What a library is asked for; arrays are its own."""

    def like(self, values: Any, x: Any) -> Any: ...  # an array of NumPy's in the dtype of x
    def tanh(self, x: Any) -> Any: ...
    def sigmoid(self, x: Any) -> Any: ...
    def sin(self, x: Any) -> Any: ...
    def cos(self, x: Any) -> Any: ...
    def exp(self, x: Any) -> Any: ...
    def sqrt(self, x: Any) -> Any: ...
    def relu(self, x: Any) -> Any: ...
    def softmax(self, x: Any) -> Any: ...
    def sum(self, x: Any) -> Any: ...
    def roll(self, x: Any) -> Any: ...
    def transpose(self, x: Any) -> Any: ...
    def where(self, condition: Any, x: Any, y: Any) -> Any: ...
    def take(self, x: Any, indices: Any) -> Any: ...
    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any: ...
    def conv(self, x: Any, kernel: Any) -> Any: ...
    def stop(self, x: Any) -> Any: ...  # no gradient goes through it
    def noise(self, x: Any) -> Any: ...  # another one at each run, in the form of x
    def vjp(self, fn: Callable[[Any], Any], x: Any, up: Any) -> Any: ...
    def custom(self, fn: Callable[[Any], Any], backward: Callable[[Any, Any], Any]) -> Callable[[Any], Any]: ...


@dataclass(frozen=True)
class Problem:
    """A function to be checked: how it is built, and its inputs."""

    name: str
    size: str
    build: Callable[[Ops], Callable[..., Any]]
    inputs: tuple[Any, ...]

    @property
    def entries(self) -> int:
        return sum(i.size for i in self.inputs)


def problems(seed: int, sizes: tuple[str, ...] = SIZES) -> list[Problem]:
    """Five functions at some sizes, in float64."""
    rng = np.random.default_rng(seed)
    found = []
    for k, size in enumerate(SIZES):
        for name, shapes in _shapes(k).items():
            inputs = tuple(rng.normal(size=shape) / np.sqrt(shape[0]) for shape in shapes)
            if size in sizes:
                found.append(Problem(name, size, _BUILD[name], inputs))
    return found


def _shapes(k: int) -> Mapping[str, list[tuple[int, ...]]]:
    n = (4, 12, 28)[k]
    side, steps = (5, 9, 16)[k], (3, 6, 12)[k]
    return {
        "dense + tanh": [(n, n), (n, n), (n,)],
        "softmax": [(n, 2 * n)],
        "conv": [(1, side, side, 3), (3, 3, 3, 4)],
        "lstm": [(steps, 2, n), (n, 4 * n), (n, 4 * n), (4 * n,)],
        "attention": [(n, n), (n, n), (n, n)],
    }


def _dense(ops: Ops) -> Callable[..., Any]:
    return lambda x, w, b: ops.tanh(x @ w + b)


def _softmax(ops: Ops) -> Callable[..., Any]:
    return ops.softmax


def _conv(ops: Ops) -> Callable[..., Any]:
    return lambda x, kernel: ops.tanh(ops.conv(x, kernel))


def _lstm(ops: Ops) -> Callable[..., Any]:
    def lstm(x: Any, w: Any, u: Any, b: Any) -> Any:
        n = u.shape[0]
        h = c = x[0] * 0.0
        for t in range(x.shape[0]):
            z = x[t] @ w + h @ u + b
            i, f, g, o = (z[:, k * n : (k + 1) * n] for k in range(4))
            c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
            h = ops.sigmoid(o) * ops.tanh(c)
        return h

    return lstm


def _attention(ops: Ops) -> Callable[..., Any]:
    return lambda q, k, v: ops.softmax(q @ ops.transpose(k) / q.shape[1] ** 0.5) @ v


_BUILD = {"dense + tanh": _dense, "softmax": _softmax, "conv": _conv, "lstm": _lstm, "attention": _attention}
