"""Jacobians, analytic and numeric, in the form of `tf.test.compute_gradient`."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._calls import explained
from gradcheck._check.jacobian import analytic_rows, measure, row_reach
from gradcheck._check.options import options
from gradcheck._check.work import Work, begin
from gradcheck._derivatives.analytic import analytic
from gradcheck._derivatives.point import Reals
from gradcheck._graph import structure
from gradcheck._graph.evaluate import eagerly, unconverted
from gradcheck._graph.functions import name_of, trace_function
from gradcheck._graph.questions import reading
from gradcheck._graph.raised import lines_noted
from gradcheck._graph.trace import Traced
from gradcheck._graph.values import is_symbolic

Jacobians = tuple[Any, ...]  # NumPy arrays; Any, because NumPy's types do not know bfloat16


@unconverted
@explained("x")
def compute_gradient(
    f: Callable[..., Any], x: Sequence[Any], delta: float | None = None
) -> tuple[Jacobians, Jacobians]:
    """Compute the Jacobians of a function, analytic and numeric, as `tf.test.compute_gradient` returns them.

    Every row of an analytic Jacobian is one gradient, in the function's own dtype; a gradient that is None gives
    rows of zeros. The numeric ones are differences of the function's float64 twin, with a step chosen from what the
    function's values show. What `tf.stop_gradient` and random ops give is held still.

    A complex entry counts as two reals, its real part before its imaginary part, in rows and columns.

    Args:
        f: Gives one tensor of a floating or complex dtype.
        x: A list or tuple of its arguments, all of a floating or complex dtype.
        delta: Accepted, because callers of `tf.test.compute_gradient` pass it, and not used. No fixed step serves
            every function: 1/1024 is lost in the rounding of a float32 input of 1e5, and too long for one of 1e-5.

    Returns:
        Two tuples with one array for each argument, of shape [size of the output, size of the argument] and of the
        argument's dtype (its real counterpart, where that is complex): the analytic, then the numeric Jacobians.

    Raises:
        ValueError: If x is no list or tuple, or is empty; if a gradient has a wrong shape or dtype.
        TypeError: If an argument or the output cannot be differentiated; the text says what to do.

    Example:
        >>> import gradcheck, tensorflow as tf
        >>> analytic, numeric = gradcheck.compute_gradient(lambda x: x * x, [tf.constant([1.0, 3.0])])
        >>> analytic[0].tolist()
        [[2.0, 0.0], [0.0, 6.0]]
        >>> gradcheck.max_error(analytic, numeric) < 1e-6
        True
    """
    _validate(f, x, delta)
    arguments = [_argument(value, i) for i, value in enumerate(x)]
    traced = _traced(f, arguments)
    with lines_noted(traced.graph, traced.name):
        work = begin(traced, options())
        native = _rows(work, wide=False)
        wide = _rows(work, wide=True)
        wide = [np.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0) for rows in wide]  # only says how precise to be
        reach = row_reach(work, wide)
        numeric = [_measured(work, k, matrix, reach) for k, matrix in enumerate(wide)]
    return _in_own_dtype(work, native), _in_own_dtype(work, numeric)


def max_error(jacobians: Sequence[Any], others: Sequence[Any]) -> float:
    """The largest absolute difference between two lists of arrays; NaN where there is a NaN, 0 where there is nothing.

    Args:
        jacobians: Arrays, e.g. the first of what `compute_gradient` returns.
        others: Arrays of the same shapes, e.g. the second.

    Raises:
        ValueError: If the shapes or the lengths differ.

    Example:
        >>> import gradcheck
        >>> gradcheck.max_error([[[1.0, 2.0]]], [[[1.0, 2.5]]])
        0.5
    """
    if len(jacobians) != len(others):
        raise ValueError(f"max_error needs as many arrays on either side, found {len(jacobians)} and {len(others)}")
    worst = 0.0
    for k, pair in enumerate(zip(jacobians, others, strict=True)):
        one, other = (_wide(a) for a in pair)
        if one.shape != other.shape:
            raise ValueError(f"max_error needs arrays of the same shape, found {one.shape} and {other.shape} at [{k}]")
        worst = float(np.maximum(worst, np.max(np.abs(one - other), initial=0.0)))
    return worst


# ------------------------------------------------------------------------------------------------- arguments


def _validate(f: Any, x: Any, delta: Any) -> None:
    if not callable(f):
        raise TypeError(f"f must be callable, got {type(f).__name__}")
    if not isinstance(x, (list, tuple)):
        more = delta is not None and not isinstance(delta, numbers.Real)
        listed = "compute_gradient(f, [x, y]): a third argument is delta, a number" if more else "[x]"
        raise ValueError(f"x must be a list or tuple of the arguments of f, got {type(x).__name__}; write {listed}")
    if not x:
        raise ValueError(f"x must hold at least one argument of f, got an empty {type(x).__name__}")
    if delta is None:
        return
    if isinstance(delta, bool) or not isinstance(delta, numbers.Real):
        raise TypeError(f"delta must be a positive number or None; got delta={delta!r}")
    if not (math.isfinite(delta) and float(delta) > 0):
        raise ValueError(f"delta must be a positive finite number or None; got delta={delta!r}")


def _argument(value: Any, i: int) -> Any:
    """A tensor of a graph as it is, a variable of a graph as the tensor that reads it, anything else as an array."""
    variable = structure.variable_of(value)
    if structure.is_composite(value) or value is None:
        raise TypeError(f"x[{i}] must be convertible to a dense tensor, got {type(value).__name__}")
    if is_symbolic(value) or (variable is not None and not tf.executing_eagerly()):
        found = value if variable is None else reading(variable)
        dtype = found.dtype.base_dtype
    else:
        with eagerly():  # in a graph, the conversion would leave an op behind
            tensor = tf.convert_to_tensor(value)
        dtype, found = tensor.dtype, tensor.numpy()
    if dtype not in structure.CONTINUOUS:
        raise TypeError(
            f"x[{i}] must have a floating or complex dtype to be differentiated, found {dtype.name}; leave it out of x "
            "and let f read it from around: compute_gradient(lambda *x: f(..., constant), x); or make it floating"
        )
    return found


def _traced(f: Callable[..., Any], arguments: list[Any]) -> Traced:
    """f traced, its output looked at where it is called."""
    faults: list[str] = []

    def checked(*given: Any) -> Any:
        y = f(*given)
        fault = _fault(y)
        if fault is not None:
            faults.append(fault)
            raise TypeError(fault)
        return y

    try:
        return trace_function(checked, arguments, wrt="inputs", name=name_of(f))
    except TypeError:
        if faults:
            raise TypeError(faults[0]) from None
        raise


def _fault(y: Any) -> str | None:
    """Why what f returned has no Jacobian."""
    variable = structure.variable_of(y)
    tensor = y if variable is None else variable
    if not isinstance(tensor, (tf.Tensor, tf.Variable, np.ndarray, np.generic, float, complex)):
        return f"f must return one tensor, found {type(y).__name__}; write lambda *x: f(*x)[0]"
    if structure.is_continuous(tensor):
        return None
    found = structure.dtype_name(tensor)
    return f"f must return a tensor of a floating or complex dtype to be differentiated, found {found}"


# ------------------------------------------------------------------------------------------------- Jacobians


def _rows(work: Work, *, wide: bool) -> list[Reals]:
    """The analytic Jacobian for every x, [m, n] each; zeros where there is no gradient."""
    m = work.values[0].size
    sizes = [_size(work, k) for k in range(len(work.traced.sources))]
    if not m:
        return [np.zeros((0, n)) for n in sizes]
    for gradient in analytic(work.point, 0, np.eye(1, m), work.shapes[0], wide=wide):
        if gradient.fault is not None:
            raise ValueError(f"TensorFlow cannot use this gradient: {gradient.fault}")
    found = analytic_rows(work, 0, wide=wide)
    return [np.zeros((m, n)) if rows is None else rows for rows, n in zip(found, sizes, strict=True)]


def _size(work: Work, k: int) -> int:
    source = work.traced.sources[k]
    return math.prod(source.shape) * (2 if source.dtype.is_complex else 1)


def _measured(work: Work, k: int, matrix: Reals, reach: Reals) -> Reals:
    """The numeric Jacobian for one x, [m, n]."""
    numeric = np.zeros(matrix.shape)
    located = work.mover_of(k)
    if located is None or not matrix.size:
        return numeric
    mover, place = located
    found = measure(work, 0, k, matrix, reach)
    values = np.where(found.numeric.nonfinite[0], np.nan, found.numeric.value[0])
    numeric[found.rows, found.columns] = values / mover.scales[place][found.columns]
    return numeric


def _in_own_dtype(work: Work, matrices: Sequence[Reals]) -> Jacobians:
    dtypes = [source.dtype.real_dtype.as_numpy_dtype for source in work.traced.sources]
    with np.errstate(over="ignore"):
        return tuple(matrix.astype(dtype) for matrix, dtype in zip(matrices, dtypes, strict=True))


def _wide(array: Any) -> Any:
    found = np.asarray(array)
    return found if found.dtype.kind == "c" else found.astype(np.float64)
