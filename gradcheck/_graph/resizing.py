"""Resizing of images in float64, where its kernels compute in float32 only.

It is a matrix along each axis, whose entries the kernel itself gives: they are what it makes of an identity matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import types_pb2

from gradcheck._graph.nodes import Node

_FLOATING = (types_pb2.DT_HALF, types_pb2.DT_BFLOAT16, types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE)
_RESIZES = {"ResizeBilinear": tf.raw_ops.ResizeBilinear, "ResizeBicubic": tf.raw_ops.ResizeBicubic}
_IMAGES = tf.TensorSpec([None] * 4, tf.float64)
Weights = Callable[..., Any]  # of one axis: float64, [new, old]


def resizing(node: Node) -> tuple[Callable[..., Any], list[Any]] | None:
    """A function that takes in float64 what the node takes, and specs of its arguments; None of any other op."""
    kind = node.op.removesuffix("Grad")
    if "T" not in node.attr or node.attr["T"].type not in _FLOATING:
        return None
    if kind in _RESIZES:
        corners, centers = (bool(node.attr[k].b) for k in ("align_corners", "half_pixel_centers"))

        def weights(old: Any, new: Any) -> Any:
            return _along(old, lambda images: _RESIZES[kind](
                images=images, size=tf.stack([new, 1]), align_corners=corners, half_pixel_centers=centers
            ))  # fmt: skip

        return _gradient(weights, []) if node.op != kind else _forward(weights, [])
    if kind == "ScaleAndTranslate":
        how = {"kernel_type": node.attr["kernel_type"].s.decode(), "antialias": bool(node.attr["antialias"].b)}

        def placed(old: Any, new: Any, scale: Any, translation: Any) -> Any:
            scales, moves = (tf.stack([tf.cast(v, tf.float32), e]) for v, e in ((scale, 1.0), (translation, 0.0)))
            return _along(old, lambda images: tf.raw_ops.ScaleAndTranslate(
                images=images, size=tf.stack([new, 1]), scale=scales, translation=moves, **how
            ))  # fmt: skip

        places = [tf.TensorSpec([2], tf.float64)] * 2
        return _gradient(placed, places) if node.op != kind else _forward(placed, places)
    return None


def _along(old: Any, resize: Callable[[Any], Any]) -> Any:
    """The matrix of what `resize` does along the first axis of images."""
    return tf.cast(tf.transpose(resize(tf.eye(old)[:, :, None, None])[:, :, 0, 0]), tf.float64)


def _forward(weights: Weights, places: list[Any]) -> tuple[Callable[..., Any], list[Any]]:
    def resize(images: Any, size: Any, *at: Any) -> Any:
        old = tf.shape(images)[1:3]
        down, across = (weights(old[k], size[k], *(v[k] for v in at)) for k in range(2))
        return tf.einsum("yh,bhwc,xw->byxc", down, images, across)

    return resize, [_IMAGES, tf.TensorSpec([2], tf.int32), *places]


def _gradient(weights: Weights, places: list[Any]) -> tuple[Callable[..., Any], list[Any]]:
    def gradient(upstream: Any, images: Any, *at: Any) -> Any:
        new, old = tf.shape(upstream)[1:3], tf.shape(images)[1:3]
        down, across = (weights(old[k], new[k], *(v[k] for v in at)) for k in range(2))
        return tf.einsum("yh,byxc,xw->bhwc", down, upstream, across)

    return gradient, [_IMAGES, _IMAGES, *places]
