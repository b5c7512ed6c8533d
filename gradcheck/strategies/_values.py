"""Tensors of numbers that print short: multiples of a power of two."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradcheck.strategies._arguments import (
    COMPLEX,
    FLOATING,
    bounds_of,
    count_of,
    drawn,
    dtype_of,
    shape_of,
    tensor,
)

_GRAINS = 128  # so many grains has the range at least: bfloat16 tells as many apart
_APART = 4  # grains between entries and what they avoid
_DIRECTIONS = 2
_NEAR = 2.0**-8  # how far a kink is looked for, in units of the inputs' size


@st.composite
def shapes(
    draw: st.DrawFn, *, min_dims: int = 0, max_dims: int = 3, min_side: int = 1, max_side: int = 4
) -> tuple[int, ...]:
    """Shapes of tensors; they shrink to few and small sides.

    Args:
        draw: Given by hypothesis.
        min_dims: The least number of dimensions.
        max_dims: The largest one.
        min_side: The least size of a dimension.
        max_side: The largest one.

    Example:
        >>> from gradcheck import strategies
        >>> strategies.shapes(max_dims=2)
        shapes(max_dims=2)
    """
    return tuple(draw(hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side)))


@st.composite
def dtypes(draw: st.DrawFn, *, narrow: bool = False, complex: bool = False) -> Any:
    """Dtypes (tf.DType) that have gradients: float64 and float32; they shrink to float64.

    Args:
        draw: Given by hypothesis.
        narrow: float16 and bfloat16 too.
        complex: complex128 and complex64 too.
    """
    names = FLOATING[: 4 if narrow else 2] + (COMPLEX if complex else ())
    return tf.as_dtype(draw(st.sampled_from(names)))


@st.composite
def tensors(
    draw: st.DrawFn, shape: Any = None, dtype: Any = "float64", *, min_value: float = -2.0, max_value: float = 2.0,
    avoid: float | Iterable[float] = (),
) -> Any:  # fmt: skip
    """Eager tensors of finite numbers, multiples of a power of two; they shrink to zeros and small shapes.

    Args:
        draw: Given by hypothesis.
        shape: A shape, a whole number, a strategy for either, or None for any small one.
        dtype: A floating or complex dtype, or a strategy for one. A complex number has both parts in the range.
        min_value: The least number.
        max_value: The largest one.
        avoid: Numbers that no entry comes near: kinks and singularities of the function.

    Raises:
        TypeError, ValueError: When a test draws, if an argument cannot be used.

    Example:
        >>> from gradcheck import strategies
        >>> strategies.tensors((2, 3), avoid=0.0)
        tensors(shape=(2, 3), avoid=0.0)
    """
    low, high = bounds_of(min_value, max_value)
    wanted, size = dtype_of(draw, dtype), shape_of(draw, shape)
    grain = 2.0 ** math.floor(math.log2((high - low) / _GRAINS))
    first, last = math.ceil(low / grain), math.floor(high / grain)
    avoided = [float(avoid)] if isinstance(avoid, (int, float)) else [float(a) for a in avoid]
    allowed = [k for k in range(first, last + 1) if all(abs(k * grain - a) >= _APART * grain for a in avoided)]
    if not allowed:
        many = f"the {len(avoided)} numbers to avoid"
        raise ValueError(f"nothing is left between {low} and {high} when all near {many} is left out")
    grains = st.sampled_from(sorted(allowed, key=lambda k: (abs(k), k < 0)))
    parts = [draw(hnp.arrays(np.int64, size, elements=grains, fill=st.nothing())) * grain]
    if wanted.is_complex:
        parts.append(draw(hnp.arrays(np.int64, size, elements=grains, fill=st.nothing())) * grain)
    return tensor(parts[0] if len(parts) == 1 else parts[0] + 1j * parts[1], wanted)


@st.composite
def at_kinks(draw: st.DrawFn, shape: Any = None, dtype: Any = "float64") -> Any:
    """Tensors of ties, zeros of both signs, ones and halves: where abs, relu, max, sort and clip have their kinks.

    Args:
        draw: Given by hypothesis.
        shape: As for `tensors`.
        dtype: As for `tensors`, but floating.
    """
    wanted, size = dtype_of(draw, dtype, FLOATING), shape_of(draw, shape)
    elements = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, -0.5])
    return tensor(draw(hnp.arrays(np.float64, size, elements=elements, fill=st.nothing())), wanted)


@st.composite
def away_from_kinks(
    draw: st.DrawFn, /, fn: Callable[..., Any], shape: Any = None, dtype: Any = "float64", **range_: Any
) -> Any:
    """Tensors at which a function of one tensor has no kink, and none near: its gradient does not jump beside them.

    Args:
        draw: Given by hypothesis.
        fn: The function; what it returns is summed.
        shape: As for `tensors`.
        dtype: As for `tensors`, but floating.
        range_: `min_value`, `max_value` and `avoid`, as for `tensors`.
    """
    if not callable(fn):
        raise TypeError(f"fn must be callable; found {type(fn).__name__}")
    wanted = dtype_of(draw, dtype, FLOATING)
    return draw(tensors(shape, wanted, **range_).filter(lambda x: not _jumps(fn, x)))


def _jumps(fn: Callable[..., Any], x: Any) -> bool:
    """Whether the gradient changes, from one side of x to the other, by more than a smooth one would."""
    wide = tf.cast(x, tf.float64)
    reach = _NEAR * max(1.0, float(tf.reduce_max(tf.abs(wide))) if tf.size(wide) else 1.0)

    def gradient(at: Any) -> Any:
        moved = tf.cast(at, x.dtype)
        with tf.GradientTape() as tape:
            tape.watch(moved)
            total = tf.add_n([tf.cast(tf.reduce_sum(y), tf.float64) for y in tf.nest.flatten(fn(moved))])
        found = tape.gradient(total, moved)
        return np.zeros(x.shape) if found is None else tf.cast(found, tf.float64).numpy()

    rng = np.random.default_rng(0)
    for _ in range(_DIRECTIONS):
        # Unequal paces, so that ties between entries come apart.
        side = rng.uniform(0.5, 1.0, x.shape) * rng.choice([-1.0, 1.0], x.shape)
        far, near = (np.abs(gradient(wide + s * side) - gradient(wide - s * side)) for s in (reach, reach / 16))
        size = np.max(np.abs(gradient(wide)), initial=0.0) + 1e-3
        if (
            not np.all(np.isfinite(far))
            or np.any(far > 4 * 16 * near + 1e-2 * size)
            or np.any(near > far / 4 + 1e-2 * size)
        ):
            return True
    return False


@st.composite
def cotangents(draw: st.DrawFn, like: Any) -> Any:
    """Cotangents of the structure, shapes and dtypes of some outputs: units and halves, none of them zero.

    Args:
        draw: Given by hypothesis.
        like: Tensors, arrays or variables in any structure.
    """
    if not tf.nest.flatten(like):
        raise ValueError("like must hold at least one tensor, found none")

    def one(value: Any) -> Any:
        value = tf.convert_to_tensor(value)
        if not (value.dtype.is_floating or value.dtype.is_complex):
            raise TypeError(f"like must hold floating or complex tensors, found {value.dtype.name}")
        elements = st.sampled_from([1.0, -1.0, 0.5, -0.5, 2.0, -2.0])
        return tensor(draw(hnp.arrays(np.float64, value.shape, elements=elements, fill=st.nothing())), value.dtype)

    return tf.nest.map_structure(one, like)


@st.composite
def broadcastable(draw: st.DrawFn, n: int = 2, *, max_dims: int = 3, max_side: int = 4) -> tuple[tuple[int, ...], ...]:
    """Several shapes that broadcast together.

    Args:
        draw: Given by hypothesis.
        n: How many.
        max_dims: The largest number of dimensions.
        max_side: The largest size of a dimension.
    """
    many = count_of(draw, "n", n, 1)
    found = draw(hnp.mutually_broadcastable_shapes(num_shapes=many, max_dims=max_dims, max_side=max_side, min_side=1))
    return tuple(found.input_shapes)


@st.composite
def variables(draw: st.DrawFn, values: Any = None, *, trainable: bool = True) -> Any:
    """A tf.Variable.

    Args:
        draw: Given by hypothesis.
        values: A tensor, a strategy for one, or None for `tensors()`.
        trainable: As for tf.Variable.
    """
    return tf.Variable(drawn(draw, tensors() if values is None else values), trainable=trainable)
