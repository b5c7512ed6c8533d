"""gradcheck itself, and `tf.test.compute_gradient`, which gives two Jacobians and leaves the judgement to the caller.

It is judged here as tests of ops commonly do: the largest difference may be 1e-4, in float32 1e-3. In bfloat16, where
its default step of 1/1024 does not move a number near 1, it takes steps of 1/16 and may be 0.1 apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

import gradcheck

from .measure import Counted, serve

_TOLERANCE = {"float64": 1e-4, "float32": 1e-3, "bfloat16": 0.1}
_STEP = {"float64": None, "float32": None, "bfloat16": 1 / 16}


class TensorFlowOps:
    """As `problems.Ops` says."""

    tanh = staticmethod(tf.tanh)
    sigmoid = staticmethod(tf.sigmoid)
    sin = staticmethod(tf.sin)
    cos = staticmethod(tf.cos)
    exp = staticmethod(tf.exp)
    sqrt = staticmethod(tf.sqrt)
    relu = staticmethod(tf.nn.relu)
    softmax = staticmethod(tf.nn.softmax)
    sum = staticmethod(tf.reduce_sum)
    transpose = staticmethod(tf.transpose)
    where = staticmethod(tf.where)
    take = staticmethod(tf.gather)
    reshape = staticmethod(tf.reshape)
    stop = staticmethod(tf.stop_gradient)

    @staticmethod
    def like(values: Any, x: Any) -> Any:
        return tf.cast(tf.constant(values), x.dtype)

    @staticmethod
    def roll(x: Any) -> Any:
        return tf.roll(x, 1, 0)

    @staticmethod
    def conv(x: Any, kernel: Any) -> Any:
        return tf.nn.conv2d(x, kernel, 1, "SAME")

    @staticmethod
    def noise(x: Any) -> Any:
        drawn = tf.numpy_function(lambda shape: np.random.normal(size=shape), [tf.shape(x)], tf.float64)
        return tf.cast(tf.reshape(drawn, tf.shape(x)), x.dtype)

    @staticmethod
    def vjp(fn: Callable[[Any], Any], x: Any, up: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = fn(x)
        return tape.gradient(y, x, output_gradients=up)

    @staticmethod
    def custom(fn: Callable[[Any], Any], backward: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
        @tf.custom_gradient
        def subject(x: Any) -> Any:
            return fn(x), lambda up: backward(x, up)

        return subject


class _TensorFlow:
    ops = TensorFlowOps()

    def check(
        self, way: str, fn: Callable[..., Any], inputs: tuple[Any, ...], dtype: str, order: int
    ) -> tuple[bool, int | None]:
        given = [tf.cast(tf.constant(i), dtype) for i in inputs]
        if way.startswith("gradcheck"):
            report = gradcheck.check_gradients(fn, given, mode=way.split()[1], order=order)
            return report.ok, report.cost.evaluations
        asked = fn if order == 1 else lambda x: self.ops.vjp(fn, x, tf.ones_like(x))
        counted = Counted(asked)
        jacobians = tf.test.compute_gradient(counted, given, delta=_STEP[dtype])
        apart = [np.abs(np.float64(a) - np.float64(n)) for a, n in zip(*jacobians, strict=True)]
        return all(bool((a < _TOLERANCE[dtype]).all()) for a in apart), counted.calls


if __name__ == "__main__":
    serve(_TensorFlow())
