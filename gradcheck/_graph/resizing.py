"""Bilinear resizing in float64, which TensorFlow's kernel gives in float32 only.

Along each axis it is a matrix, whose entries the kernel itself gives: they are what it makes of an identity matrix.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import types_pb2

from gradcheck._graph.nodes import Node, data_inputs, make_node, op_def
from gradcheck._graph.program import Body, from_concrete

_FLOATING = (types_pb2.DT_HALF, types_pb2.DT_BFLOAT16, types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE)
_D = types_pb2.DT_DOUBLE


def is_resize(node: Node) -> bool:
    """Whether a node is such an op, or its gradient, on floating values."""
    return node.op in ("ResizeBilinear", "ResizeBilinearGrad") and node.attr["T"].type in _FLOATING


def wide_resize(node: Node, function: str) -> Node:
    """The call of a function, registered under a name, that does in float64 what the node does."""
    call = make_node("PartitionedCall", node.name, data_inputs(node))
    inputs = [_D, types_pb2.DT_INT32] if node.op == "ResizeBilinear" else [_D, _D]
    call.attr["Tin"].list.type.extend(inputs)
    call.attr["Tout"].list.type.extend([_D])
    call.attr["f"].func.name = function
    return call


def output_of(node: Node) -> str:
    """The reference of what a resize gives."""
    return f"{node.name}:{op_def(node.op).output_arg[0].name}:0"


def body_of_resize(node: Node) -> Body:
    """What is called: a function of images and a size or, of a gradient, of a gradient and images."""
    corners, centers = node.attr["align_corners"].b, node.attr["half_pixel_centers"].b
    body: Body = _made(node.op, bool(corners), bool(centers)).main
    return body


@cache
def _made(op: str, corners: bool, centers: bool) -> Any:
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
    with tf.init_scope():
        if op == "ResizeBilinear":
            function = tf.function(resize).get_concrete_function(image, tf.TensorSpec([2], tf.int32))
        else:
            function = tf.function(gradient).get_concrete_function(image, image)
    return from_concrete(function)
