"""What rules accept: hyperparameters within their range, and params, grads and state that belong together."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def require_number(name: str, value: Any, *, most: float = math.inf, signed: bool = False) -> None:
    """Refuse what is no number, array or scalar tensor from 0 to `most`; symbolic tensors are taken as they are.

    Signed ones may be negative, but not 0.
    """
    tensor = tf.is_tensor(value) or hasattr(value, "assign")
    if isinstance(value, bool) or not (tensor or isinstance(value, (numbers.Real, np.ndarray))):
        raise TypeError(f"{name} must be a number or a scalar tensor; got {name}={value!r}")
    if tensor and not (tf.as_dtype(value.dtype).is_floating and tf.TensorShape(value.shape).is_compatible_with([])):
        raise TypeError(
            f"{name} must be a floating scalar; got a tensor of shape {_shape(value)} and dtype {_dtype(value).name}"
        )
    if tensor and not (hasattr(value, "numpy") and tf.executing_eagerly()):
        return
    found = np.asarray(value.numpy() if tensor else value, np.float64)
    inside = np.all(found != 0) if signed else np.all(found >= 0) and np.all(found <= most)
    if not (inside and np.all(np.isfinite(found))):
        limits = "other than 0" if signed else "at least 0" if most == math.inf else f"from 0 to {most:g}"
        raise ValueError(f"{name} must be a finite number {limits}; got {name}={float(found.ravel()[0])!r}")


def require_rate(name: str, value: Any) -> None:
    """Refuse what is neither a number of at least 0 nor a schedule."""
    if not callable(value):
        try:
            require_number(name, value)
        except TypeError as error:
            raise TypeError(f"{error}; a schedule is a callable of the step, which counts from 0") from None


def require_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse what is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {name}={value!r}")


def require_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False; got {name}={value!r}")


def require_rule(value: Any, kind: type) -> None:
    """Refuse what is no rule of this package."""
    if not isinstance(value, kind):
        found = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
        raise TypeError(f"rule must be a rule of gradcheck.optimizers, e.g. GradientDescent(0.1); got {found}")


def params_of(params: Any) -> list[Any]:
    """The leaves of params as floating tensors.

    Raises:
        TypeError: If a leaf is no floating tensor, variable, array or number.
        ValueError: If there is none.
    """
    tensors = [_floating(path, leaf) for path, leaf in zip(paths(params), tf.nest.flatten(params), strict=True)]
    if not tensors:
        raise ValueError(f"params must hold at least one tensor; got {params!r}")
    return tensors


def grads_of(params: Any, grads: Any, tensors: Sequence[Any]) -> list[Any]:
    """The leaves of grads as dense tensors of the shapes and dtypes of the params; None where there is no gradient.

    Raises:
        TypeError, ValueError: If structure, shapes or dtypes are not those of the params.
    """
    same_structure("grads", params, grads)
    return [
        _gradient(path, gradient, param)
        for path, gradient, param in zip(paths(params, "grads"), tf.nest.flatten(grads), tensors, strict=True)
    ]


def slots_of(params: Any, state: Any, names: Sequence[str], tensors: Sequence[Any]) -> list[dict[str, Any]]:
    """For each leaf of params its slots by name.

    Raises:
        TypeError, ValueError: If the state is not one that `init` gives for such params.
    """
    if not isinstance(state, Mapping) or set(state) != {"step", *names}:
        found = f"the keys {', '.join(map(str, state))}" if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"state must be what init(params) gives, a dict of {', '.join(('step', *names))}; got {found}")
    columns = []
    for name in names:
        same_structure(f"state[{name!r}]", params, state[name])
        leaves = zip(paths(params, f"state[{name!r}]"), tf.nest.flatten(state[name]), tensors, strict=True)
        columns.append([_gradient(path, slot, param) for path, slot, param in leaves])
    return [dict(zip(names, each, strict=True)) for each in zip(*columns, strict=True)] or [{} for _ in tensors]


def same_structure(name: str, params: Any, other: Any) -> None:
    """Refuse a structure that is not that of params."""
    try:
        tf.nest.map_structure(lambda *_: None, params, other)  # assert_same_structure does not compare keys
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} must have the structure of params, which is {_outline(params)}; got {_outline(other)}"
        ) from None


def paths(structure: Any, path: str = "params") -> list[str]:
    """An expression for each leaf, in the order of `tf.nest.flatten`."""
    return list(_walk(structure, path))


def _walk(structure: Any, path: str) -> Iterator[str]:
    if isinstance(structure, Mapping):
        for key in sorted(structure):
            yield from _walk(structure[key], f"{path}[{key!r}]")
    elif tf.nest.is_nested(structure):
        for i, part in enumerate(structure):
            yield from _walk(part, f"{path}[{i}]")
    else:
        yield path


def _outline(structure: Any) -> str:
    text = str(tf.nest.map_structure(lambda _: None, structure)).replace("None", ".")
    return text if len(text) <= 120 else f"{text[:117]}..."


def _floating(path: str, leaf: Any) -> Any:
    try:
        tensor = tf.convert_to_tensor(leaf)
    except (TypeError, ValueError):
        raise TypeError(f"{path} must be a floating tensor; got {type(leaf).__name__}") from None
    if not tensor.dtype.is_floating:
        raise TypeError(f"{path} must be a floating tensor; got dtype {tensor.dtype.name}: cast it")
    return tensor


def _gradient(path: str, gradient: Any, param: Any) -> Any:
    if gradient is None:
        return None
    if isinstance(gradient, tf.IndexedSlices):
        gradient = _dense(gradient, param)
    elif isinstance(gradient, numbers.Real):
        gradient = tf.cast(gradient, param.dtype)
    gradient = tf.convert_to_tensor(gradient)
    if gradient.dtype != param.dtype:
        raise TypeError(f"{path} must have the dtype of params, {param.dtype.name}; got {gradient.dtype.name}: cast it")
    if not gradient.shape.is_compatible_with(param.shape):
        raise ValueError(f"{path} must have the shape of params, {_shape(param)}; got {_shape(gradient)}")
    return gradient


def _dense(slices: Any, param: Any) -> Any:
    """The sum of the slices, rows that none names being zero."""
    rows = tf.shape(param, out_type=tf.int64)[0]
    summed = tf.math.unsorted_segment_sum(slices.values, slices.indices, rows)
    return tf.ensure_shape(summed, param.shape)


def _shape(tensor: Any) -> str:
    return str(tf.TensorShape(tensor.shape))


def _dtype(tensor: Any) -> Any:
    return tf.as_dtype(tensor.dtype)
