"""Ops that TensorFlow computes in float32 only, done in float64 by others.

Bilinear resizing is a matrix along each axis, whose entries the kernel itself gives: they are what it makes of an
identity matrix. Pooling in three dimensions is pooling in two, and then in the third.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import types_pb2

from gradcheck._graph.nodes import Node
from gradcheck._graph.program import Body, from_concrete

_FLOATING = (types_pb2.DT_HALF, types_pb2.DT_BFLOAT16, types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE)
_RESIZES = ("ResizeBilinear", "ResizeBilinearGrad")
_POOLS = ("MaxPool3D", "MaxPool3DGrad", "AvgPool3D", "AvgPool3DGrad")


def stand_in(node: Node) -> Body | None:
    """A body that takes in float64 what the node takes, and gives what it gives; None where none is needed or known."""
    if node.op in _RESIZES and node.attr["T"].type in _FLOATING:
        resizes: Body = _resizing(node.op, bool(node.attr["align_corners"].b), bool(node.attr["half_pixel_centers"].b))
        return resizes
    if node.op in _POOLS and node.attr["data_format"].s in (b"", b"NDHWC"):
        attributes = (node.attr[k] for k in ("ksize", "strides"))
        lengths = (tuple(a.list.i) for a in attributes)
        pools: Body = _pooling(node.op, *lengths, node.attr["padding"].s.decode())
        return pools
    return None


@cache
def _resizing(op: str, corners: bool, centers: bool) -> Any:
    def weights(old: Any, new: Any) -> Any:
        """[new, old]"""
        image = tf.eye(old)[None, :, :, None]
        found = tf.raw_ops.ResizeBilinear(
            images=image, size=tf.stack([new, old]), align_corners=corners, half_pixel_centers=centers
        )
        return tf.cast(found[0, :, :, 0], tf.float64)

    def resize(images: Any, size: Any) -> Any:
        shape = tf.shape(images)
        return tf.einsum("yh,bhwc,xw->byxc", weights(shape[1], size[0]), images, weights(shape[2], size[1]))

    def gradient(upstream: Any, images: Any) -> Any:
        new, old = tf.shape(upstream), tf.shape(images)
        return tf.einsum("yh,byxc,xw->bhwc", weights(old[1], new[1]), upstream, weights(old[2], new[2]))

    image = tf.TensorSpec([None] * 4, tf.float64)
    if op == "ResizeBilinear":
        return _traced(resize, image, tf.TensorSpec([2], tf.int32))
    return _traced(gradient, image, image)


@cache
def _pooling(op: str, ksize: Sequence[int], strides: Sequence[int], padding: str) -> Any:
    _, depth, height, width, _ = ksize
    _, along, down, across, _ = strides
    plane = {"ksize": [1, height, width, 1], "strides": [1, down, across, 1], "padding": padding}
    column = {"ksize": [1, depth, 1, 1], "strides": [1, along, 1, 1], "padding": padding}
    images, sizes = tf.TensorSpec([None] * 5, tf.float64), tf.TensorSpec([5], tf.int32)
    kind = op.removesuffix("3D").removesuffix("3DGrad")
    pool: Callable[..., Any] = {"MaxPool": _max_pool, "AvgPool": tf.raw_ops.AvgPool}[kind]

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

    if op == "MaxPool3DGrad":
        return _traced(of_largest, images, images, images)
    return _traced(of_mean, sizes, images) if op == "AvgPool3DGrad" else _traced(forward, images)


def _max_pool(value: Any, **how: Any) -> Any:
    return tf.raw_ops.MaxPool(input=value, **how)


def _traced(function: Callable[..., Any], *specs: Any) -> Body:
    with tf.init_scope():
        made: Body = from_concrete(tf.function(function, autograph=False).get_concrete_function(*specs)).main
        return made
