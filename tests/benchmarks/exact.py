"""Arithmetic in which derivatives are known: 40 digits where mpmath is installed, else NumPy's extended precision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

try:
    import mpmath
except ImportError:
    mpmath = None

_ARC = ("asin", "acos", "atan", "asinh", "acosh", "atanh")


class _Extended:
    """NumPy's functions under mpmath's names, on np.longdouble."""

    pi = np.longdouble("3.14159265358979323846264338327950288")

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name.replace("a", "arc", 1) if name in _ARC else name)


HAS_SPECIAL = mpmath is not None  # erfinv, psi and besseli are there


def arithmetic() -> Any:
    """The functions in which closed forms are written."""
    if mpmath is None:
        return _Extended()
    mpmath.mp.dps = 40
    return mpmath.mp


def real(value: Any) -> Any:
    """A float as exactly that real."""
    return mpmath.mpf(float(value)) if mpmath is not None else np.longdouble(value)


def reals(values: Iterable[Any]) -> list[Any]:
    """Floats as exactly those reals."""
    return [real(v) for v in values]
