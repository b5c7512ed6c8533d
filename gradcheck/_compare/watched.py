"""Whether anything is computed in float32, seen by TensorFlow's callbacks of ops that run at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_callbacks


@contextlib.contextmanager
def float32_seen() -> Iterator[list[str]]:
    """A scope that gives the types of ops in it that take or give numbers in less than float64, as they come."""
    found: list[str] = []

    def look(
        op_type: Any, inputs: Sequence[Any], attrs: Any, outputs: Sequence[Any], op_name: Any = None, graph: Any = None
    ) -> None:
        if any(t.dtype.is_floating and t.dtype != tf.float64 for t in (*inputs, *outputs) if hasattr(t, "dtype")):
            found.append(str(op_type))

    op_callbacks.add_op_callback(look)
    try:
        yield found
    finally:
        op_callbacks.remove_op_callback(look)
