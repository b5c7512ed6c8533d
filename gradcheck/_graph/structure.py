"""The user's inputs and outputs, as leaves with paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

CONTINUOUS = (tf.float64, tf.float32, tf.float16, tf.bfloat16, tf.complex64, tf.complex128)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value of a nested structure and the expression that reaches it."""

    path: str
    value: Any


def leaves(structure: Any, path: str) -> list[Leaf]:
    """All leaves, in order; tensors of several parts (sparse, ragged) count each part."""
    return list(_walk(structure, path))


def _walk(value: Any, path: str) -> Iterator[Leaf]:
    if isinstance(value, Mapping):
        for key in value:
            yield from _walk(value[key], f"{path}[{key!r}]")
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for key in value._fields:
            yield from _walk(getattr(value, key), f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from _walk(part, f"{path}[{i}]")
    elif is_composite(value):
        for i, part in enumerate(tf.nest.flatten(value, expand_composites=True)):
            yield Leaf(f"{path}.{_component(value, i)}", part)
    else:
        yield Leaf(path, value)


def rebuild(structure: Any, replacement: Callable[[Any], Any]) -> Any:
    """A copy of the structure with each leaf given to `replacement` (in the order of `leaves`)."""
    if isinstance(structure, Mapping):
        pairs = {key: rebuild(structure[key], replacement) for key in structure}
        return same_mapping(structure, pairs)
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*(rebuild(getattr(structure, k), replacement) for k in structure._fields))
    if isinstance(structure, (list, tuple)):
        return type(structure)([rebuild(part, replacement) for part in structure])
    if is_composite(structure):
        parts = [replacement(part) for part in tf.nest.flatten(structure, expand_composites=True)]
        return tf.nest.pack_sequence_as(structure, parts, expand_composites=True)
    return replacement(structure)


def same_mapping(structure: Mapping[Any, Any], pairs: dict[Any, Any]) -> Any:
    """The pairs in a mapping of the same type, where that can be made of them."""
    if type(structure) is dict:
        return pairs
    try:
        return type(structure)(pairs)  # type: ignore[call-arg]
    except TypeError:
        return pairs


def is_composite(value: Any) -> bool:
    """Whether the value is a tensor of several parts, such as a sparse or ragged one."""
    return isinstance(value, (tf.SparseTensor, tf.RaggedTensor, tf.IndexedSlices))


def _component(value: Any, i: int) -> str:
    if isinstance(value, tf.SparseTensor):
        return ("indices", "values", "dense_shape")[i]
    if isinstance(value, tf.RaggedTensor):
        return "flat_values" if i == 0 else f"nested_row_splits[{i - 1}]"
    return ("values", "indices", "dense_shape")[i]


def variable_of(value: Any) -> Any:
    """The tf.Variable behind a value that is one, or a Keras one; else None."""
    if isinstance(value, tf.Variable):
        return value
    inner = getattr(value, "value", None)
    if type(value).__module__.startswith("keras.") and isinstance(inner, tf.Variable):
        return inner
    return None


def is_continuous(value: Any) -> bool:
    """Whether a leaf has a floating or complex dtype (Python numbers count by their type)."""
    if isinstance(value, bool) or value is None or isinstance(value, (str, bytes)):
        return False
    if isinstance(value, (float, complex)):
        return True
    variable = variable_of(value)
    dtype = getattr(variable if variable is not None else value, "dtype", None)
    if dtype is None:
        return False
    try:
        return tf.as_dtype(dtype).base_dtype in CONTINUOUS
    except TypeError:
        return False


def dtype_name(value: Any) -> str:
    """What to call the dtype of a leaf in a sentence."""
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return type(value).__name__
    try:
        return str(tf.as_dtype(dtype).base_dtype.name)
    except TypeError:
        return str(dtype)


def as_array(value: Any) -> Any:
    """The NumPy value of an eager leaf."""
    if type(value) is float:  # TensorFlow's default; np.float64 is a float too and keeps its dtype
        return np.asarray(value, np.float32)
    if type(value) is complex:
        return np.asarray(value, np.complex128)
    variable = variable_of(value)
    if variable is not None:
        return variable.numpy()
    return np.array(value.numpy() if hasattr(value, "numpy") else value)
