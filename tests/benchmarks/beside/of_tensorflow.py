"""gradcheck itself, and `tf.test.compute_gradient`, which gives two Jacobians and leaves the judgement to the caller.

It is judged here as tests of ops commonly do: the largest difference may be 1e-4, in float32 1e-3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

import gradcheck

from .measure import measure

_TOLERANCE = {"float64": 1e-4, "float32": 1e-3}


class TensorFlowOps:
    """As `problems.Ops` says."""

    array = staticmethod(tf.constant)
    tanh = staticmethod(tf.tanh)
    sigmoid = staticmethod(tf.sigmoid)
    sin = staticmethod(tf.sin)
    exp = staticmethod(tf.exp)
    softmax = staticmethod(tf.nn.softmax)
    sum = staticmethod(tf.reduce_sum)
    transpose = staticmethod(tf.transpose)
    reshape = staticmethod(tf.reshape)

    @staticmethod
    def roll(x: Any) -> Any:
        return tf.roll(x, 1, 0)

    @staticmethod
    def conv(x: Any, kernel: Any) -> Any:
        return tf.nn.conv2d(x, kernel, 1, "SAME")


class _TensorFlow:
    ops = TensorFlowOps()
    ways = ("gradcheck auto", "gradcheck directional", "tf.test.compute_gradient")

    def check(self, way: str, fn: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[bool, int | None]:
        if way.startswith("gradcheck"):
            report = gradcheck.check_gradients(fn, list(inputs), mode=way.split()[1])
            return report.ok, report.cost.evaluations
        calls = [0]

        def counted(*args: Any) -> Any:
            calls[0] += 1
            return fn(*args)

        analytic, numeric = tf.test.compute_gradient(counted, [tf.constant(i) for i in inputs])
        worst = max(float(np.max(np.abs(a - n))) for a, n in zip(analytic, numeric, strict=True))
        return worst < _TOLERANCE[inputs[0].dtype.name], calls[0]

    def wrong(self, fn: Callable[[Any], Any], entry: int, defect: float) -> Callable[[Any], Any]:
        @tf.custom_gradient
        def subject(x: Any) -> Any:
            def gradient(upstream: Any) -> Any:
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    y = fn(x)
                factors = np.ones(x.shape)
                factors[entry] += defect
                return tape.gradient(y, x, output_gradients=upstream) * tf.constant(factors, x.dtype)

            return fn(x), gradient

        return subject


if __name__ == "__main__":
    measure(_TensorFlow())
