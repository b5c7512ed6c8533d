"""Whether tensors that have values are finite, told to Python."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import tensorflow as tf

from gradcheck._graph.finite import amounts, census
from gradcheck._report.nonfinite import Range


def amounts_of(tensors: Sequence[Any]) -> Any:
    """The sums of the squares of eager tensors, as a NumPy vector: one call, whatever their shapes."""
    return _traced_amounts(tuple(t.dtype for t in tensors))(*tensors).numpy()


@lru_cache(maxsize=64)
def _traced_amounts(dtypes: tuple[Any, ...]) -> Any:
    """The amounts of tensors of some dtypes, in one call."""
    specs = [tf.TensorSpec(None, dtype) for dtype in dtypes]
    return tf.function(lambda *tensors: amounts(tensors), autograph=False).get_concrete_function(*specs)


def counted(name: str, tensor: Any, old: Any) -> Range | None:
    """What is not finite in an eager tensor, and was in the old one; None where that is nothing."""
    nan, posinf, neginf, new = census(tensor, old if old is None or old.shape == tensor.shape else None).numpy()
    if not new:
        return None
    shape = tuple(tensor.shape.as_list())
    return Range(name=name, dtype=tensor.dtype.name, shape=shape, nan=int(nan), posinf=int(posinf), neginf=int(neginf))
