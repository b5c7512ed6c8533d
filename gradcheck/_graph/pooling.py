"""Pooling in three dimensions in float64, where its kernels compute in float32 only: in two, and then in the third."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from gradcheck._graph.nodes import Node

_POOLS = ("MaxPool3D", "MaxPool3DGrad", "AvgPool3D", "AvgPool3DGrad")


def pooling(node: Node) -> tuple[Callable[..., Any], list[Any]] | None:
    """A function that takes in float64 what the node takes, and specs of its arguments; None of any other op."""
    if node.op not in _POOLS or node.attr["data_format"].s not in (b"", b"NDHWC"):
        return None
    _, depth, height, width, _ = node.attr["ksize"].list.i
    _, along, down, across, _ = node.attr["strides"].list.i
    padding = node.attr["padding"].s.decode()
    plane = {"ksize": [1, height, width, 1], "strides": [1, down, across, 1], "padding": padding}
    column = {"ksize": [1, depth, 1, 1], "strides": [1, along, 1, 1], "padding": padding}
    images, sizes = tf.TensorSpec([None] * 5, tf.float64), tf.TensorSpec([5], tf.int32)
    pool: Callable[..., Any] = _max_pool if node.op.startswith("Max") else tf.raw_ops.AvgPool

    def pooled(x: Any) -> tuple[Any, Any, Any, Any]:
        """The planes, what is left of them, the columns of that, and what is left of those."""
        n, d, h, w, c = tf.unstack(tf.shape(x))
        planes = tf.reshape(x, [n * d, h, w, c])
        flat = pool(value=planes, **plane)
        columns = tf.reshape(flat, tf.stack([n, d, -1, c]))
        return planes, flat, columns, pool(value=columns, **column)

    def forward(x: Any) -> Any:
        _, flat, _, left = pooled(x)
        shape, (_, h, w, c) = tf.shape(left), tf.unstack(tf.shape(flat))
        return tf.reshape(left, tf.stack([shape[0], shape[1], h, w, c]))

    def of_largest(x: Any, _: Any, upstream: Any) -> Any:
        planes, flat, columns, left = pooled(x)
        grad = tf.reshape(upstream, tf.shape(left))
        grad = tf.raw_ops.MaxPoolGrad(orig_input=columns, orig_output=left, grad=grad, **column)
        grad = tf.raw_ops.MaxPoolGrad(
            orig_input=planes, orig_output=flat, grad=tf.reshape(grad, tf.shape(flat)), **plane
        )
        return tf.reshape(grad, tf.shape(x))

    def of_mean(shape: Any, upstream: Any) -> Any:
        n, d, h, w, c = tf.unstack(shape)
        left = tf.shape(upstream)
        grad = tf.reshape(upstream, tf.stack([n, left[1], -1, c]))
        grad = tf.raw_ops.AvgPoolGrad(orig_input_shape=tf.stack([n, d, left[2] * left[3], c]), grad=grad, **column)
        grad = tf.reshape(grad, tf.stack([n * d, left[2], left[3], c]))
        grad = tf.raw_ops.AvgPoolGrad(orig_input_shape=tf.stack([n * d, h, w, c]), grad=grad, **plane)
        return tf.reshape(grad, shape)

    if node.op == "MaxPool3DGrad":
        return of_largest, [images, images, images]
    return (of_mean, [sizes, images]) if node.op == "AvgPool3DGrad" else (forward, [images])


def _max_pool(value: Any, **how: Any) -> Any:
    return tf.raw_ops.MaxPool(input=value, **how)
