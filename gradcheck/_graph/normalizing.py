"""Normalization in float64: by the batch, and across channels, whose kernels of TensorFlow compute in float32 only.

The formulas are those of Ioffe and Szegedy, "Batch Normalization" (2015), Algorithm 1 and section 3, and of Krizhevsky,
Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012), section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from gradcheck._graph.nodes import Node

_BATCH = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
_BATCH_GRADIENTS = ("FusedBatchNormGrad", "FusedBatchNormGradV2", "FusedBatchNormGradV3")


def normalization(node: Node) -> tuple[Callable[..., Any], list[Any]] | None:
    """A function that takes in float64 what the node takes, and specs of its arguments; None of any other op."""
    images, vector = _spec(4), _spec(1)
    if node.op in _BATCH:
        return _batch(node), [_Layout(node).spec, *[vector] * 4]
    if node.op in _BATCH_GRADIENTS:
        batch = _Layout(node).spec
        return _batch_gradient(node), [batch, batch, *[vector] * 3, *[_spec(None)] * node.op.endswith("V3")]
    if node.op == "LRN":
        return _across_channels(node), [images]
    if node.op == "LRNGrad":
        return _across_channels_gradient(node), [images] * 3
    return None


def _spec(rank: int | None) -> Any:
    return tf.TensorSpec(None if rank is None else [None] * rank, tf.float64)


class _Layout:
    """Where the channels of a batch are, and the other axes."""

    def __init__(self, node: Node) -> None:
        name = (node.attr["data_format"].s or b"NHWC").decode()
        at = name.index("C")
        self.others = [axis for axis in range(len(name)) if axis != at]
        self.spec = _spec(len(name))
        self._shape = [-1 if axis == at else 1 for axis in range(len(name))]

    def beside(self, x: Any, vector: Any) -> Any:
        """A number per channel, shaped to be computed with x."""
        return tf.reshape(vector, self._shape)

    def count(self, x: Any) -> Any:
        """How many numbers of x each channel has."""
        return tf.cast(tf.reduce_prod(tf.gather(tf.shape(x), self.others)), tf.float64)


def _batch(node: Node) -> Callable[..., Any]:
    layout, epsilon, training = _Layout(node), node.attr["epsilon"].f, node.attr["is_training"].b
    rate = node.attr["exponential_avg_factor"].f if node.op == "FusedBatchNormV3" else 1.0

    def normalized(x: Any, scale: Any, offset: Any, mean: Any, variance: Any) -> list[Any]:
        outer = mean, variance
        if training:
            mean = tf.reduce_mean(x, layout.others)
            variance = tf.reduce_mean(tf.square(x - layout.beside(x, mean)), layout.others)
        factor = scale * tf.math.rsqrt(variance + epsilon)
        y = (x - layout.beside(x, mean)) * layout.beside(x, factor) + layout.beside(x, offset)
        given = [mean, variance]
        if training:
            count = layout.count(x)
            given[1] = variance * (count / tf.maximum(count - 1.0, 1.0))  # of a sample
            if rate != 1.0:
                given = [(1.0 - rate) * old + rate * new for old, new in zip(outer, given, strict=True)]
        return [y, *given, mean, variance, *([tf.zeros([0], tf.float64)] if node.op == "FusedBatchNormV3" else [])]

    return normalized


def _batch_gradient(node: Node) -> Callable[..., Any]:
    layout, epsilon, training = _Layout(node), node.attr["epsilon"].f, node.attr["is_training"].b

    def gradients(upstream: Any, x: Any, scale: Any, mean: Any, variance: Any, *_: Any) -> list[Any]:
        inverse = tf.math.rsqrt(variance + epsilon)
        unit = (x - layout.beside(x, mean)) * layout.beside(x, inverse)
        of_scale = tf.reduce_sum(upstream * unit, layout.others)
        of_offset = tf.reduce_sum(upstream, layout.others)
        left = upstream
        if training:
            count = layout.count(x)
            left -= layout.beside(x, of_offset / count) + unit * layout.beside(x, of_scale / count)
        nothing = tf.zeros([0], tf.float64)
        return [left * layout.beside(x, scale * inverse), of_scale, of_offset, nothing, nothing]

    return gradients


def _across_channels(node: Node) -> Callable[..., Any]:
    sums, beta = _sums(node), node.attr["beta"].f

    def normalized(x: Any) -> Any:
        return x * sums(x) ** -beta

    return normalized


def _across_channels_gradient(node: Node) -> Callable[..., Any]:
    sums, band, alpha, beta = _sums(node), _band(node), node.attr["alpha"].f, node.attr["beta"].f

    def gradient(upstream: Any, x: Any, y: Any) -> Any:
        found = sums(x)
        shared = tf.einsum("bhwd,cd->bhwc", upstream * y / found, band(tf.shape(x)[3]))
        return upstream * found**-beta - 2.0 * alpha * beta * x * shared

    return gradient


def _sums(node: Node) -> Callable[[Any], Any]:
    """What is raised to a power: of each number, from the squares of its neighbours in the other channels."""
    band, bias, alpha = _band(node), node.attr["bias"].f, node.attr["alpha"].f
    return lambda x: bias + alpha * tf.einsum("bhwd,cd->bhwc", tf.square(x), band(tf.shape(x)[3]))


def _band(node: Node) -> Callable[[Any], Any]:
    """Which channels are neighbours: 1, else 0."""
    radius = node.attr["depth_radius"].i

    def band(channels: Any) -> Any:
        width = tf.minimum(channels, radius)
        return tf.linalg.band_part(tf.ones([channels, channels], tf.float64), width, width)

    return band
