"""A subject of the breadth gallery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import gradcheck
from gradcheck import GradientReport, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Culprit:
    """The op at fault of a wrong subject, as a report that blames it has to name it."""

    op: str  # type, or "custom_gradient"
    source: str  # part of the user's line that made it
    function: str | None = None  # name of the decorated function


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A subject, made anew for each check, and what a check has to say of it.

    Attributes:
        make: Gives positional arguments of `check`, and keyword arguments in the end if the last one is a dict.
        x: Path of the worst finding's x, of a wrong subject.
    """

    name: str
    check: Callable[..., GradientReport]
    make: Callable[[], tuple[Any, ...]]
    options: Mapping[str, Any] = field(default_factory=dict)
    verdict: Verdict = Verdict.MATCH
    x: str | None = None
    culprit: Culprit | None = None
    slow: bool = False

    def report(self, **options: Any) -> GradientReport:
        """What the check says."""
        return self.check(*self.make(), **{**self.options, **options})


def model(name: str, make: Callable[[], tuple[Any, ...]], **more: Any) -> Case:
    """A case for `check_model`; `make` gives the model, x and, with a loss, y."""
    slow = more.pop("slow", False)
    return Case(name=name, check=gradcheck.check_model, make=make, options=more, slow=slow)


def function(name: str, fn: Callable[..., Any], *inputs: Any, **more: Any) -> Case:
    """A case for `check_gradients`."""
    slow = more.pop("slow", False)
    return Case(name=name, check=gradcheck.check_gradients, make=lambda: (fn, list(inputs)), options=more, slow=slow)


def floats(*shape: int, seed: int = 0, scale: float = 1.0, dtype: Any = np.float32) -> Any:
    """Normal numbers."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0.0, scale, shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.normal(0.0, scale, shape)
    return values.astype(dtype)


def positive(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    """Numbers between 0.5 and 2."""
    return np.random.default_rng(seed).uniform(0.5, 2.0, shape).astype(dtype)


def definite(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    """Positive definite matrices of well separated eigenvalues, the last size given twice."""
    *batch, n = shape
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(*batch, n, n)))[0]
    return (q * (1.0 + np.arange(n)) @ np.swapaxes(q, -1, -2)).astype(dtype)
