"""The inputs that the user wrote, as a function is called with them: numbers in lists are arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf


def given(inputs: Any) -> Any:
    """The inputs, each list of numbers in them as one array.

    A list of Python's numbers, or of such lists of one length, is an array if one of them is a float or complex, in
    the dtype that TensorFlow gives a float (float32), as in `tf.constant`. Lists of whole numbers, such as shapes,
    stay lists, and so do tuples and what holds tensors. Outermost, a list is the positional arguments.

    Raises:
        TypeError: For what cannot be an argument of a function that runs many times: a data set, an iterator, or a
            symbol of Keras, which has no values.
    """
    if isinstance(inputs, Mapping) or (isinstance(inputs, (list, tuple)) and not hasattr(inputs, "_fields")):
        return _inside(inputs)
    return _taken(inputs)


def _inside(value: Any) -> Any:
    """A copy of a mapping, list or tuple with what is inside as it is taken; itself where that changes nothing."""
    if isinstance(value, Mapping):
        parts = {key: _taken(part) for key, part in value.items()}
        changed = any(parts[key] is not value[key] for key in parts)
        return type(value)(parts) if changed else value  # type: ignore[call-arg]
    parts = [_taken(part) for part in value]
    if all(new is old for new, old in zip(parts, value, strict=True)):
        return value
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


def _taken(value: Any) -> Any:
    if isinstance(value, list) and (array := _array(value)) is not None:
        return array
    if isinstance(value, (Mapping, list, tuple)):
        return _inside(value)
    if isinstance(value, tf.data.Dataset):
        raise TypeError("inputs must be one batch, found a Dataset; write next(iter(dataset))")
    if isinstance(value, Iterator):
        raise TypeError(
            f"inputs must be values, found an iterator ({type(value).__name__}), which ends after the first of many "
            "runs; write np.array(list(iterator))"
        )
    if type(value).__name__ == "KerasTensor":
        raise TypeError(
            "inputs must have values, found a KerasTensor, the symbol of an input of Keras; write "
            "check_gradients(model, x) with an array x of that shape"
        )
    return value


def _array(value: list[Any]) -> Any:
    numbers = list(_numbers(value))
    if not any(isinstance(n, (float, complex)) for n in numbers):
        return None
    if not all(isinstance(n, (int, float, complex)) and not isinstance(n, bool) for n in numbers):
        return None
    try:
        array = np.array(value)
    except ValueError:  # rows of several lengths
        return None
    exact = array.dtype.kind == "c" or any(isinstance(n, np.generic) for n in numbers)
    return array if exact else array.astype(np.float32)


def _numbers(value: Any) -> Iterator[Any]:
    for part in value:
        if isinstance(part, (list, tuple)):
            yield from _numbers(part)
        else:
            yield part
