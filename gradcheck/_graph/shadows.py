"""Copies of variables, for a program to read and write in place of the user's."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

from gradcheck._graph.evaluate import eagerly


def shadow(value: Any) -> Any:
    """The handle of a new variable that holds a value; the variable dies with the handle."""
    with eagerly(), tf.device("CPU:0"):
        value = tf.convert_to_tensor(value)
        handle = empty_shadow(value.dtype)
        tf.raw_ops.AssignVariableOp(resource=handle, value=value)
        return handle


def empty_shadow(dtype: Any) -> Any:
    """The handle of a new variable that holds nothing yet, as one that is made but not initialized."""
    with eagerly(), tf.device("CPU:0"):
        return tf.raw_ops.VarHandleOp(dtype=dtype, shape=tf.TensorShape(None), shared_name=context.anonymous_name())


def read(handle: Any, dtype: Any) -> Any:
    """The value of a variable, or None where it holds none."""
    with eagerly():
        if not tf.raw_ops.VarIsInitializedOp(resource=handle):
            return None
        return tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)
