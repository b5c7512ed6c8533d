"""The same functions for every library, from a few operations that all of them have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

ENTRIES = 1000
SIZES = ("small", "medium", "large")
KINDS = ("square", "weighted softmax", "matmul and tanh", "chain", "mean of exp")
# One entry of a gradient is too large by so much of itself; 0 is a right gradient, in which a finding is a false alarm.
DEFECTS = {"float64": (0.0, 1e-8, 1e-6, 1e-4, 1e-2), "float32": (0.0, 1e-5, 1e-4, 1e-3, 1e-2)}


class Ops(Protocol):
    """What a library is asked for; arrays are its own."""

    def array(self, values: Any) -> Any: ...
    def tanh(self, x: Any) -> Any: ...
    def sigmoid(self, x: Any) -> Any: ...
    def sin(self, x: Any) -> Any: ...
    def exp(self, x: Any) -> Any: ...
    def softmax(self, x: Any) -> Any: ...
    def sum(self, x: Any) -> Any: ...
    def roll(self, x: Any) -> Any: ...
    def transpose(self, x: Any) -> Any: ...
    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any: ...
    def conv(self, x: Any, kernel: Any) -> Any: ...


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


def kind(ops: Ops, name: str) -> Callable[[Any], Any]:
    """One of the functions into which defects are planted: of a vector of `ENTRIES`."""
    cosines = np.cos(np.arange(ENTRIES))
    weights = np.sin(np.arange(1.0, ENTRIES + 1)).reshape(40, 25) / 6
    found: dict[str, Callable[[Any], Any]] = {
        "square": lambda x: x * x,
        "weighted softmax": lambda x: ops.sum(ops.softmax(x) * _like(ops, cosines, x)),
        "matmul and tanh": lambda x: ops.tanh(ops.reshape(x, (25, 40)) @ _like(ops, weights, x)),
        "chain": lambda x: ops.sum(ops.tanh(ops.sin(x) * ops.roll(x))),
        "mean of exp": lambda x: ops.sum(ops.exp(x)) / ENTRIES,
    }
    return found[name]


def _like(ops: Ops, values: Any, x: Any) -> Any:
    width = "float32" if "float32" in str(x.dtype) else "float64"
    return ops.array(values.astype(width))


def data(seed: int, dtype: str) -> tuple[Any, int]:
    """A random input and the entry whose derivative is falsified."""
    rng = np.random.default_rng([seed, 1])
    x = rng.uniform(0.5, 1.5, ENTRIES) * rng.choice([-1.0, 1.0], ENTRIES)
    return x.astype(dtype), int(rng.integers(ENTRIES))
