"""The float64 twin computes what the float32 graph computes, with its rounding taken away."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from gradcheck._derivatives.analytic import analytic
from gradcheck._derivatives.point import Point
from gradcheck._graph.functions import trace_function
from gradcheck._graph.program import map_bodies
from gradcheck._graph.twin import WIDER, is_narrow, promote
from tests.gallery import GALLERY

EPS = {"float32": 2.0**-23, "complex64": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
# Units of rounding that a graph of some tens of ops may lose, by a random walk of up to a thousand roundings.
DEPTH = 32

NAMES = (
    "exp of float32", "tanh of float16", "sigmoid of bfloat16", "exp of complex64", "gelu", "erf", "digamma in float32",
    "softmax", "log_softmax, logits of 50", "sparse cross-entropy", "matmul in float32", "matmul in float16",
    "matmul of complex64", "conv2d", "transposed convolution", "depthwise convolution", "max pool", "average pool",
    "layer norm", "fused batch norm in training", "cholesky in float32", "singular values in float32", "fft",
    "power spectrum", "bilinear resize", "while loop in float32", "nested while", "nested functions", "jit_compile",
    "py_function in float32", "numpy_function with a custom gradient, float32", "Dense", "Conv2D", "LayerNormalization",
    "BatchNormalization in training", "LSTM", "GRU", "MultiHeadAttention", "Dropout in training",
    "Keras model in training", "stop_gradient in float32", "stateful noise in float32", "stateless noise", "ctc loss",
)  # fmt: skip
ROWS = {row.name: row for row in GALLERY}
narrow_rows = pytest.mark.parametrize("row", [ROWS[name] for name in NAMES], ids=NAMES)


def traced(row):
    fn, inputs = row.case()
    return trace_function(fn, inputs)


def distance(narrow, wide):
    """The largest difference in units of rounding of the largest entry."""
    size = np.max(np.abs(wide), initial=0.0)
    return float(
        np.max(np.abs(np.asarray(narrow).astype(wide.dtype) - wide), initial=0.0) / (EPS[narrow.dtype.name] * size)
    )


@narrow_rows
def test_the_twin_agrees_with_the_graph_to_the_rounding_of_the_graph(row):
    point = Point(traced(row))
    assert point.narrow
    for narrow, wide in zip(point.outputs_at_base(wide=False), point.outputs_at_base(wide=True), strict=True):
        for own, exact in zip(narrow, wide, strict=True):
            assert exact.dtype in (np.float64, np.complex128)
            assert own.dtype.name in EPS
            assert distance(own, exact) < DEPTH


def test_a_twin_that_computes_something_else_would_be_seen():
    own, exact = np.float32([1.0, 2.0]), np.array([1.0, 2.00001])
    assert distance(own, exact) > DEPTH
    assert distance(own, exact.astype(np.float32).astype(np.float64)) > DEPTH


def test_the_twin_has_digits_that_the_graph_has_not():
    point = Point(trace_function(lambda x: tf.exp(x) / 3.0, [tf.constant([0.1, 0.7])]))
    (own,), (exact,) = point.outputs_at_base(wide=False)[0], point.outputs_at_base(wide=True)[0]
    assert 0 < np.max(np.abs(own - exact)) < 4 * EPS["float32"]
    np.testing.assert_allclose(exact, np.exp(np.float32([0.1, 0.7]).astype(np.float64)) / 3, rtol=8 * 2.0**-52)


def narrow_types(program):
    found = set()

    def look(body):
        found.update((a.name, a.dtype) for a in body.args if a.dtype in WIDER)
        found.update(
            (node.op, node.attr["T"].type) for node in body.nodes if "T" in node.attr and node.attr["T"].type in WIDER
        )
        return body

    map_bodies(program, look)
    return found


@pytest.mark.parametrize(
    "name", ["softmax", "while loop in float32", "nested functions", "GRU", "stop_gradient in float32"]
)
def test_nothing_narrow_is_left_in_a_twin_whose_ops_all_have_a_kernel(name):
    program = traced(ROWS[name]).program
    assert is_narrow(program)
    twin, unpromoted = promote(program)
    assert unpromoted == ()
    assert narrow_types(program)
    assert not narrow_types(twin)


def test_a_graph_in_float64_is_not_narrow():
    assert not is_narrow(trace_function(tf.sin, [np.array([1.0])]).program)
    assert is_narrow(trace_function(lambda x: tf.cast(tf.cast(x, tf.float32), tf.float64), [np.array([1.0])]).program)


def cropped(x):
    return tf.image.crop_and_resize(x, [[0.1, 0.2, 0.8, 0.9]], [0], [2, 2])


def shifted(x):
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=x, transforms=[[1.0, 0.0, 0.5, 0.0, 1.0, 0.5, 0.0, 0.0]], output_shape=[3, 3],
        interpolation="BILINEAR", fill_value=0.0, fill_mode="CONSTANT",
    )  # fmt: skip


def numpy_function(x):
    y = tf.numpy_function(np.sin, [x], tf.float32)
    y.set_shape(x.shape)
    return y


def python_function(x):
    y = tf.py_function(tf.sin, [x], tf.float32)
    y.set_shape(x.shape)
    return y


def bits(x):
    return tf.bitcast(tf.bitcast(x, tf.int32), tf.float32)


@pytest.mark.parametrize(
    ("fn", "op"),
    [
        (cropped, "CropAndResize"),
        (shifted, "ImageProjectiveTransformV3"),
        (numpy_function, "PyFunc"),
        (python_function, "EagerPyFunc"),
        (bits, "Bitcast"),
    ],
)
def test_ops_that_keep_rounding_are_named(fn, op):
    _, unpromoted = promote(trace_function(fn, [np.ones((1, 3, 3, 1), np.float32)]).program)
    assert any(op in name for name in unpromoted), unpromoted


def test_random_ops_keep_their_numbers_and_are_not_among_the_named():
    def fn(x):
        return x * tf.random.normal([3])

    program = trace_function(fn, [np.ones(3, np.float32)]).program
    assert promote(program)[1] == ()
    point = Point(trace_function(fn, [np.ones(3, np.float32)]))
    assert np.array_equal(point.outputs_at_base(wide=False)[0][0], point.outputs_at_base(wide=True)[0][0])


def test_constants_keep_the_value_that_they_had_in_float32():
    point = Point(trace_function(lambda x: x * 0.1, [np.float32([1.0])]))
    assert point.outputs_at_base(wide=True)[0][0] == np.float64(np.float32(0.1))


def test_promotion_leaves_the_program_as_it_was():
    program = traced(ROWS["GRU"]).program
    before = [node.SerializeToString(deterministic=True) for node in program.main.nodes]
    promote(program)
    assert [node.SerializeToString(deterministic=True) for node in program.main.nodes] == before
    assert types_pb2.DT_FLOAT in {a.dtype for a in program.main.args}


def test_overflow_of_float32_is_no_overflow_of_the_twin():
    point = Point(trace_function(lambda x: tf.math.log(tf.exp(x)), [np.float32([100.0])]))
    assert np.isinf(point.outputs_at_base(wide=False)[0][0]).all()
    np.testing.assert_allclose(point.outputs_at_base(wide=True)[0][0], [100.0], rtol=4 * 2.0**-52)


def test_a_resize_stays_one_op_where_graph_and_twin_run_beside_each_other():
    program = trace_function(lambda x: tf.image.resize(x, [4, 4]), [np.ones((1, 2, 2, 1), np.float32)]).program
    twin, unpromoted = promote(program, step_by_step=True)
    assert [n.op for n in twin.main.nodes].count("ResizeBilinear") == 1
    assert any("ResizeBilinear" in name for name in unpromoted)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, tf.bfloat16.as_numpy_dtype])
def test_the_gradient_of_erf_has_its_constant_unrounded(dtype):
    x = np.linspace(-1, 1, 9).astype(dtype)
    point = Point(trace_function(tf.math.erf, [x]))
    (found,) = analytic(point, 0, np.ones((1, 9)), [(9,)], wide=True)
    exact = 2 / np.sqrt(np.pi) * np.exp(-(x.astype(np.float64) ** 2))
    np.testing.assert_allclose(found.value[0], exact, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, tf.bfloat16.as_numpy_dtype])
def test_a_users_own_numbers_stay_as_they_are(dtype):
    numbers = [1.125, 3.140625, 0.1, 2.0]  # the first two are what bfloat16 makes of 2 / sqrt(pi) and pi
    kept = np.array(numbers).astype(dtype).astype(np.float64)
    point = Point(trace_function(lambda x: [x * tf.constant(n, x.dtype) for n in numbers], [np.ones(1, dtype)]))
    assert [float(v[0][0]) for v in point.outputs_at_base(wide=True)] == kept.tolist()
