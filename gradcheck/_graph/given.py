"""The inputs that the user wrote, as a function is called with them: numbers in lists are arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._graph import structure


def given(inputs: Any) -> Any:
    """The inputs of a function, each list of numbers inside of them as one array.

    Outermost, a list is the positional arguments. Lists of whole numbers, such as shapes, stay lists.

    Raises:
        TypeError: For what a function cannot be called with many times: a data set, an iterator, or a symbol of
            Keras, which has no values.
    """
    for leaf in structure.leaves(inputs, "inputs"):
        _refuse(leaf.path, leaf.value)
    return _inside(inputs, integers=False)


def arrays(value: Any, *, integers: bool) -> Any:
    """The value with each list of Python's numbers, or of such lists of one length, as one array.

    A list with a float or complex number is one, in the dtype that `tf.constant` gives a float, float32; with
    `integers` one of whole numbers too. Tuples, and lists of tensors or arrays, stay as they are.
    """
    if isinstance(value, list) and (array := _array(value, integers)) is not None:
        return array
    return _inside(value, integers)


def _inside(value: Any, integers: bool) -> Any:
    if isinstance(value, Mapping):
        pairs = {key: arrays(part, integers=integers) for key, part in value.items()}
        return value if all(pairs[key] is value[key] for key in pairs) else structure.same_mapping(value, pairs)
    if isinstance(value, (list, tuple)):
        parts = [arrays(part, integers=integers) for part in value]
        if all(new is old for new, old in zip(parts, value, strict=True)):
            return value
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _array(value: list[Any], integers: bool) -> Any:
    numbers = list(_flat(value))
    if not numbers or not all(isinstance(n, (int, float, complex)) and not isinstance(n, bool) for n in numbers):
        return None
    if not integers and all(isinstance(n, int) for n in numbers):
        return None
    try:
        array = np.array(value)
    except ValueError:  # rows of several lengths
        return None
    # A number of NumPy's is a float too, and keeps its dtype.
    plain = array.dtype.kind == "f" and not any(isinstance(n, np.generic) for n in numbers)
    return array.astype(np.float32) if plain else array


def _flat(value: Any) -> Iterator[Any]:
    for part in value:
        if isinstance(part, (list, tuple)):
            yield from _flat(part)
        else:
            yield part


def _refuse(path: str, value: Any) -> None:
    if isinstance(value, tf.data.Dataset):
        raise TypeError(f"{path} must be one batch of values, found a Dataset; write next(iter(dataset))")
    if isinstance(value, Iterator):
        raise TypeError(
            f"{path} must be values, found an iterator ({type(value).__name__}), which ends after the first of many "
            "runs; write np.array(list(iterator))"
        )
    if type(value).__name__ == "KerasTensor":
        raise TypeError(
            f"{path} must have values, found a KerasTensor, which stands for the input of a Keras model; write "
            "check_gradients(model, x) with an array x"
        )
