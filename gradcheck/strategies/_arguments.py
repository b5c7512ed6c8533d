"""What the arguments of strategies may be, refused when a test draws."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

FLOATING = ("float64", "float32", "float16", "bfloat16")
COMPLEX = ("complex128", "complex64")


def drawn(draw: st.DrawFn, value: Any) -> Any:
    """A value, or what a strategy for it gives."""
    return draw(value) if isinstance(value, st.SearchStrategy) else value


def shape_of(draw: st.DrawFn, shape: Any, *, least: int = 0) -> tuple[int, ...]:
    """A shape: as given, drawn from a strategy, or any small one where it is None.

    Raises:
        TypeError, ValueError: If it is no shape, or has fewer than `least` dimensions.
    """
    if shape is None:
        return tuple(draw(hnp.array_shapes(min_dims=least, max_dims=max(3, least), min_side=1, max_side=4)))
    found = drawn(draw, shape)
    found = (found,) if isinstance(found, numbers.Integral) and not isinstance(found, bool) else found
    sides = isinstance(found, Sequence) and all(
        isinstance(n, numbers.Integral) and not isinstance(n, bool) for n in found
    )
    if not sides:
        raise TypeError(f"shape must be a whole number, a tuple of them, a strategy for one, or None; found {found!r}")
    if any(n < 0 for n in found) or len(found) < least:
        raise ValueError(f"shape must have at least {least} sides, none below 0; found {tuple(found)}")
    return tuple(int(n) for n in found)


def dtype_of(draw: st.DrawFn, dtype: Any, known: Sequence[str] = FLOATING + COMPLEX) -> Any:
    """The tf.DType.

    Raises:
        TypeError: If it is none of those known.
    """
    found = drawn(draw, dtype)
    try:
        wanted = tf.as_dtype(found)
    except TypeError as error:
        raise TypeError(f"dtype must be one of {', '.join(known)}, or a strategy for one; found {found!r}") from error
    if wanted.name not in known:
        raise TypeError(f"dtype must be one of {', '.join(known)}, or a strategy for one; found {wanted.name}")
    return wanted


def bounds_of(min_value: Any, max_value: Any) -> tuple[float, float]:
    """Two finite numbers, the first below the second.

    Raises:
        TypeError, ValueError: If they are not.
    """
    for name, value in (("min_value", min_value), ("max_value", max_value)):
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name} must be a number; found {value!r}")
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite; found {value!r}")
    if not min_value < max_value:
        raise ValueError(f"min_value must be below max_value; found {min_value!r} and {max_value!r}")
    return float(min_value), float(max_value)


def count_of(draw: st.DrawFn, name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`.

    Raises:
        TypeError, ValueError: If it is none.
    """
    found = drawn(draw, value)
    if isinstance(found, bool) or not isinstance(found, numbers.Integral):
        raise TypeError(f"{name} must be a whole number, or a strategy for one; found {found!r}")
    if found < least:
        raise ValueError(f"{name} must be at least {least}; found {found}")
    return int(found)


def tensor(array: Any, dtype: Any) -> Any:
    """An eager tensor."""
    return tf.constant(np.asarray(array).astype(dtype.as_numpy_dtype))
