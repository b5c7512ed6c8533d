"""One wrong entry among a thousand, in five kinds of function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .problems import Ops

ENTRIES = 1000
# The entry is too large by so much of itself.
DEFECTS = {"float64": (1e-8, 1e-6, 1e-4, 1e-2), "float32": (1e-5, 1e-4, 1e-3, 1e-2)}
_COSINES = np.cos(np.arange(ENTRIES))
_WEIGHTS = np.sin(np.arange(1.0, ENTRIES + 1)).reshape(40, 25) / 6
FUNCTIONS: dict[str, Callable[[Ops, Any], Any]] = {
    "square": lambda ops, x: x * x,
    "weighted softmax": lambda ops, x: ops.sum(ops.softmax(x) * ops.like(_COSINES, x)),
    "matmul and tanh": lambda ops, x: ops.tanh(ops.reshape(x, (25, 40)) @ ops.like(_WEIGHTS, x)),
    "chain": lambda ops, x: ops.sum(ops.tanh(ops.sin(x) * ops.roll(x))),
    "mean of exp": lambda ops, x: ops.sum(ops.exp(x)) / ENTRIES,
}


def planted(ops: Ops, function: str, entry: int, defect: float) -> Callable[[Any], Any]:
    """A function of 1,000 entries with one entry of its gradient too large by `defect` of itself."""
    factors = np.ones(ENTRIES)
    factors[entry] += defect

    def fn(x: Any) -> Any:
        return FUNCTIONS[function](ops, x)

    return ops.custom(fn, lambda x, up: ops.vjp(fn, x, up) * ops.like(factors, x))


def data(seed: int) -> tuple[Any, int]:
    """A random input and the entry whose derivative is falsified."""
    rng = np.random.default_rng([seed, 1])
    return rng.uniform(0.5, 1.5, ENTRIES) * rng.choice([-1.0, 1.0], ENTRIES), int(rng.integers(ENTRIES))
