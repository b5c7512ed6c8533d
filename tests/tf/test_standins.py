"""Ops that TensorFlow computes in float32 only have a twin in float64, which agrees with them to their rounding."""

import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck import Verdict
from gradcheck._derivatives.analytic import analytic
from gradcheck._derivatives.point import Point
from gradcheck._graph.functions import trace_function

DEPTH = 32  # units of rounding that an op and its gradient may lose

RESIZES = {
    "larger": ([5, 7], {"half_pixel_centers": True}),
    "smaller": ([2, 1], {"half_pixel_centers": True}),
    "of TensorFlow 1": ([4, 2], {}),
    "with its corners kept": ([5, 3], {"align_corners": True}),
    "to one row": ([1, 4], {"align_corners": True}),
}
POOLS = {
    "2 x 2 x 2": (2, 2, "VALID"),
    "overlapping": ((3, 2, 3), (1, 2, 2), "SAME"),
    "with gaps": ((1, 2, 1), (2, 1, 3), "VALID"),
    "all of it": ((5, 4, 6), 1, "VALID"),
}
BATCHES = {  # shape, and how
    "in training": ((3, 4, 2, 5), {}),
    "in inference": ((3, 4, 2, 5), {"is_training": False}),
    "channels first": ((3, 5, 4, 2), {"data_format": "NCHW"}),
    "a moving average": ((3, 4, 2, 5), {"exponential_avg_factor": 0.3, "epsilon": 0.1}),
    "of volumes": ((2, 3, 2, 2, 4), {"data_format": "NDHWC"}),
    "of one number a channel": ((1, 1, 1, 3), {"epsilon": 0.5}),
}


def drawn(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def agree(fn, inputs, depth=DEPTH):
    """Assert that all outputs and gradients of the twin are what the function's are, to their rounding."""
    point = Point(trace_function(fn, inputs))
    own, exact = (point.outputs_at_base(wide=wide) for wide in (False, True))
    assert point.narrow
    assert point.unpromoted == ()
    for a, (narrow, wide) in enumerate(zip(own, exact, strict=True)):
        near(narrow[0], wide[0], narrow[0].dtype, depth)
        weights, shape = drawn((1, wide[0].size), 1, np.float64), [wide[0].shape]
        pairs = zip(*(analytic(point, a, weights, shape, wide=w) for w in (False, True)), strict=True)
        for (one, other), x in zip(pairs, inputs, strict=True):
            if one.value is not None:
                near(one.value, other.value, x.dtype, depth)


def near(narrow, wide, dtype, depth):
    eps = 2.0**-23 if dtype == np.float32 else 2.0**-10
    assert wide.dtype == np.float64
    assert np.shape(narrow) == wide.shape
    apart = np.max(np.abs(np.asarray(narrow, np.float64) - wide), initial=0.0)
    assert apart <= depth * eps * np.max(np.abs(wide), initial=0.0)


@pytest.mark.parametrize(("size", "how"), list(RESIZES.values()), ids=list(RESIZES))
@pytest.mark.parametrize(("op", "dtype"), [
    ("ResizeBilinear", np.float32), ("ResizeBilinear", np.float16), ("ResizeBicubic", np.float32),
], ids=["bilinear", "bilinear of float16", "bicubic"])  # fmt: skip
def test_resizing(op, size, how, dtype):
    resize = getattr(tf.raw_ops, op)
    agree(lambda x: resize(images=x, size=size, **how), [drawn((2, 3, 4, 2), dtype=dtype)])


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("kernel", ["lanczos3", "gaussian", "triangle"])
def test_resizing_by_a_kernel(kernel, antialias):
    how = {"scale": [1.3, 0.6], "translation": [0.2, -0.7], "kernel_type": kernel, "antialias": antialias}
    agree(lambda x: tf.raw_ops.ScaleAndTranslate(images=x, size=[5, 3], **how), [drawn((2, 4, 6, 2))])


@pytest.mark.parametrize("how", list(POOLS.values()), ids=list(POOLS))
@pytest.mark.parametrize("pool", [tf.nn.max_pool3d, tf.nn.avg_pool3d], ids=["max", "avg"])
def test_pooling_in_three_dimensions(pool, how):
    agree(lambda x: pool(x, *how), [drawn((2, 5, 4, 6, 3))])


@pytest.mark.parametrize(("shape", "how"), list(BATCHES.values()), ids=list(BATCHES))
def test_normalization_by_the_batch(shape, how):
    at = how.get("data_format", "NHWC").index("C")
    mean, variance = drawn(shape[at], 4), np.abs(drawn(shape[at], 5)) + 0.5
    inputs = [3.0 + drawn(shape), drawn(shape[at], 2), drawn(shape[at], 3)]

    def normalized(x, scale, offset):
        return tf.raw_ops.FusedBatchNormV3(x=x, scale=scale, offset=offset, mean=mean, variance=variance, **how)[:3]

    agree(normalized, inputs)


def test_normalization_of_half_a_precision_by_the_batch():
    agree(lambda x: tf.raw_ops.FusedBatchNormV3(
        x=x, scale=[0.5, 2.0], offset=[1.0, 0.0], mean=[0.0, 0.0], variance=[1.0, 1.0]
    )[0], [drawn((4, 3, 3, 2), dtype=np.float16)])  # fmt: skip


@pytest.mark.parametrize("op", ["FusedBatchNorm", "FusedBatchNormV2"])
def test_earlier_versions_of_it(op):
    none = np.zeros(0, np.float32)
    made = getattr(tf.raw_ops, op)
    agree(lambda x, s: made(x=x, scale=s, offset=s, mean=none, variance=none)[0], [drawn((4, 3, 3, 2)), drawn(2, 2)])


@pytest.mark.parametrize("radius", [1, 5])
def test_normalization_across_channels(radius):
    agree(lambda x: tf.nn.local_response_normalization(x, radius, 1.5, 0.7, 0.8), [2 * drawn((2, 3, 2, 4))])


def normalized_net(norm):
    def net(x, kernel, scale, offset):
        return tf.reduce_mean(tf.nn.relu(norm(tf.nn.conv2d(x, kernel, 1, "SAME"), scale, offset)) ** 2)

    return net, [drawn((8, 12, 12, 8)), 0.2 * drawn((3, 3, 8, 16)), 1 + 0.1 * drawn(16), drawn(16, 1)]


def fused(x, scale, offset):
    return tf.compat.v1.nn.fused_batch_norm(x, scale, offset)[0]


@tf.custom_gradient
def fused_with_a_mean_held(x, scale, offset):
    """Its gradient forgets that the mean of the batch moves with x."""
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=scale, offset=offset, mean=tf.zeros([0]), variance=tf.zeros([0]), epsilon=0.001
    )

    def gradient(upstream):
        count = tf.cast(tf.size(x) // tf.size(scale), tf.float32)
        inverse = tf.math.rsqrt(variance * (count - 1) / count + 0.001)
        unit = (x - mean) * inverse
        of_scale = tf.reduce_sum(upstream * unit, [0, 1, 2])
        return scale * inverse * (upstream - unit * of_scale / count), of_scale, tf.reduce_sum(upstream, [0, 1, 2])

    return y, gradient


@pytest.mark.slow
def test_a_net_normalized_by_the_batch_is_right():
    """Without a twin it is undecided; and the rounding of a mean puts sums over all positions off together."""
    report = gradcheck.check_gradients(*normalized_net(fused))
    assert report.verdict is Verdict.MATCH
    assert report.mode == "directional"


@pytest.mark.slow
def test_a_wrong_gradient_of_such_a_net_is_found():
    report = gradcheck.check_gradients(*normalized_net(fused_with_a_mean_held))
    assert report.verdict is Verdict.MISMATCH
    assert "fused_with_a_mean_held" in str(report)
    assert (report.worst.wrong, report.worst.more_wrong) == (32, True)
    assert report.cost.evaluations < 10_000  # one by one it takes 58,000


def test_an_op_that_rounds_as_float32_does_is_asked_for_no_more():
    """What is wrong with this gradient is that it is no adjoint; not that it rounds."""

    def turned(x):
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=x, transforms=[[0.9, 0.1, 0.2, -0.1, 0.95, 0.3, 0.0, 0.0]], output_shape=[5, 5],
            interpolation="BILINEAR", fill_value=0.0, fill_mode="CONSTANT",
        )  # fmt: skip

    report = gradcheck.check_gradients(turned, [drawn((4, 5, 5, 3), dtype=np.float64)])
    assert report.verdict is Verdict.MISMATCH
    assert "linear" not in str(report)
