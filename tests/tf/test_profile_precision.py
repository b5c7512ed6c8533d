"""profile_precision names the op in which digits are lost, not those that inherit the loss; healthy nets lose none."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck import PrecisionReport

f32 = tf.float32


def x(*values, dtype=f32):
    return tf.constant(values, dtype)


def normal(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), f32)


def one_minus_cos(a):
    difference = 1.0 - tf.cos(a)  # here
    return tf.sqrt(difference) / a**2


def exp_minus_one(a):
    return (tf.exp(a) - 1.0) / a  # here


def roots(a):
    return tf.sqrt(a + 1.0) - tf.sqrt(a)  # here


def moments(v):
    return tf.reduce_mean(v * v) - tf.square(tf.reduce_mean(v))  # here


def moments_by_powers(v):
    return tf.reduce_mean(v**2) - tf.reduce_mean(v) ** 2  # here


def log_of_one_more(a):
    return tf.math.log(1.0 + a) * 2.0  # here


def one_minus_sigmoid(a):
    return tf.math.log(1.0 - tf.sigmoid(a))  # here


def variance_in_a_call():
    @tf.function
    def variance(v):
        return tf.reduce_mean(v * v) - tf.square(tf.reduce_mean(v))  # here

    return lambda v: tf.sqrt(variance(v)) * 3.0


def running(v):
    total = tf.constant(1e8)
    for _ in tf.range(3):
        total = total + tf.reduce_sum(v)  # here
    return total


def tiny(a):
    return tf.exp(-a) * 1.0  # here


def certain(z):
    return tf.sigmoid(z)  # here


def quadratic(a, b, c):
    return (-b + tf.sqrt(b * b - 4.0 * a * c)) / (2.0 * a)  # here


def in_a_loop(a):
    for i in tf.range(3):
        if i == 1:
            a = (a + 1e4) - 1e4  # here
    return a


def normalized(v):
    mean = tf.reduce_mean(v, 0)
    variance = tf.reduce_mean(v * v, 0) - mean * mean  # here
    return v / tf.sqrt(tf.abs(variance) + 1e-5)


def distances(v):
    squares = tf.reduce_sum(v * v, 1)
    return squares[:, None] - 2.0 * tf.matmul(v, v, transpose_b=True) + squares[None]  # here


def log_of_sum(z):
    return tf.math.log(tf.reduce_sum(tf.exp(z - 30.0), -1)) + 30.0 - z[..., 0]  # here


def series(a):
    """exp(-a)."""
    terms = tf.math.cumprod(tf.concat([[1.0], -a / tf.range(1.0, 60.0)], 0))
    return tf.reduce_sum(terms)  # here


def one_minus_cos_of_all(a):
    return 1.0 - tf.cos(a)  # here


def a_root_far_from_zero(a):
    return a * (tf.sqrt(a * a + 1e6) - 1e3)  # here


LOSSES = [
    ("1 - cos(x)", one_minus_cos, [x(1e-3, 2e-3)], "Sub", "cancellation", "tf.sin", 3.0),
    ("exp(x) - 1", exp_minus_one, [x(1e-6)], "Sub", "cancellation", "expm1", 4.0),
    ("difference of roots", roots, [x(1e6)], "Sub", "cancellation", "sqrt(a) + sqrt(b)", 4.0),
    ("variance by moments", moments, [x(1000.1, 1000.2, 1000.3)], "Sub", "cancellation", "reduce_variance", 4.0),
    (
        "variance by powers",
        moments_by_powers,
        [x(1000.1, 1000.2, 1000.3)],
        "Sub",
        "cancellation",
        "reduce_variance",
        4.0,
    ),
    ("log(1 + x)", log_of_one_more, [x(1e-6)], "Log", "rounding", "log1p", 5.0),
    ("1 - sigmoid(x)", one_minus_sigmoid, [x(14.0)], "Sub", "cancellation", "tf.sigmoid(-x)", 4.0),
    ("inside a call", variance_in_a_call(), [x(1000.1, 1000.2, 1000.3)], "Sub", "cancellation", "reduce_variance", 4.0),
    ("a small term", tf.function(running), [x(0.5, 0.5)], "AddV2", "absorption", "too small to count", 6.9),
    ("too small", tiny, [x(100.0)], "Exp", "underflow", "logarithm", 5.0),
    ("saturated", certain, [x(20.0, 30.0)], "Sigmoid", "saturation", "logits", 6.9),
    ("quadratic formula", quadratic, [x(1.0), x(1e4), x(1.1)], "AddV2", "cancellation", "nearly equal", 5.0),
    ("float16", moments, [x(10.1, 10.2, 10.3, dtype=tf.float16)], "Sub", "cancellation", "reduce_variance", 2.0),
    ("bfloat16", exp_minus_one, [x(0.01, dtype=tf.bfloat16)], "Sub", "cancellation", "expm1", 1.5),
    ("moments of a batch", normalized, [300.0 + normal(32, 8)], "Sub", "cancellation", "reduce_variance", 4.0),
    ("distances", distances, [50.0 + 1e-3 * normal(6, 4)], "AddV2", "cancellation", "nearly equal", 5.0),
    ("log of a sum", log_of_sum, [x(30.0, 17.0)], "Sub", "cancellation", "nearly equal", 0.9),
    ("alternating series", series, [x(9.0)], "Sum", "cancellation", "nearly equal", 2.5),
    ("a scale within", a_root_far_from_zero, [normal(50)], "Sub", "cancellation", "nearly equal", 4.0),
    ("1 - cos(x) of many", one_minus_cos_of_all, [normal(1000)], "Sub", "cancellation", "tf.sin", 3.0),
    (
        "1 - cos(x) of a few",
        one_minus_cos_of_all,
        [x(1e-4, 1e-3, 0.01, 0.1, 1.0)],
        "Sub",
        "cancellation",
        "tf.sin",
        3.0,
    ),
    ("one row of many", one_minus_cos, [x(1e-3, 1.0, 1.5, 2.0, 2.5, 3.0)], "Sub", "cancellation", "tf.sin", 3.0),
]


@pytest.mark.parametrize(
    ("name", "fn", "inputs", "op", "kind", "hint", "digits"), LOSSES, ids=[row[0] for row in LOSSES]
)
def test_the_op_that_loses_digits_is_named_first(name, fn, inputs, op, kind, hint, digits):
    report = gradcheck.profile_precision(fn, inputs)
    text = str(report)
    worst = report.worst
    assert not report.ok
    assert (worst.op_type, worst.kind) == (op, kind), text
    assert "# here" in worst.place.source, text
    assert hint in worst.hint, text
    assert worst.digits >= digits, text
    assert PrecisionReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_a_loss_is_not_blamed_on_those_who_inherit_it():
    report = gradcheck.profile_precision(one_minus_cos, [x(1e-3, 2e-3)])
    assert [loss.op_type for loss in report.losses] == ["Sub"], str(report)


def test_the_iteration_in_which_most_is_lost_is_named():
    report = gradcheck.profile_precision(tf.function(in_a_loop), [x(1.2345678)])
    assert report.worst.op_type in ("Sub", "AddV2")
    assert "iteration 1" in " > ".join(report.worst.inside)


def test_how_many_digits_of_the_output_are_right_is_told():
    report = gradcheck.profile_precision(one_minus_cos, [x(1e-3)])
    kept = {each.label: each for each in report.outputs}
    assert kept["output"].digits < 4.5
    assert 6.5 < kept["output"].of < 7.5
    healthy = gradcheck.profile_precision(tf.sin, [x(0.5)])
    assert healthy.outputs[0].digits > 6.5


def model(*layers):
    return keras.Sequential([keras.Input((16,)), *layers])


keras.utils.set_random_seed(0)  # before the layers are made, which then draw the seeds of their weights
HEALTHY = [
    ("sin", tf.sin, [normal(1000)]),
    ("sum of many", tf.reduce_sum, [normal(10_000)]),
    ("a root over its floor", lambda a: a / (tf.sqrt(a * a) + 1e-9), [normal(50)]),
    ("a logarithm over its floor", lambda a: tf.math.log(tf.abs(a) + 1e-12), [normal(50)]),
    ("masked", lambda a: tf.nn.softmax(a + x(0.0, 0.0, -100.0)) @ tf.ones([3, 2]), [normal(6, 3)]),
    ("difference of noise", lambda a: a[0] - a[1], [normal(2, 5000)]),
    ("matmul", lambda a: tf.matmul(a, a), [normal(64, 64)]),
    ("softmax", tf.nn.softmax, [normal(20, 10)]),
    ("log1p", lambda a: tf.math.log1p(a) / a, [x(1e-6, 1e-3)]),
    ("expm1", lambda a: tf.math.expm1(a) / a, [x(1e-6, 1e-3)]),
    ("exact difference", lambda a: a - 1.0, [x(1.0000001)]),
    ("loop", lambda a: tf.while_loop(lambda i, v: i < 5, lambda i, v: (i + 1, tf.tanh(v)), (0, a))[1], [normal(10)]),
    (
        "dense net",
        model(keras.layers.Dense(32, activation="tanh"), keras.layers.LayerNormalization(), keras.layers.Dense(4)),
        normal(32, 16),
    ),
    ("relu net", model(keras.layers.Dense(64, activation="relu"), keras.layers.Dense(4)), normal(32, 16)),
]


def test_one_entry_of_a_sum_that_comes_near_zero_is_no_loss():
    """In a row of the matrix the terms cancel, as they do by chance in one row of many; what takes it feels nothing."""
    rows = np.random.default_rng(0).normal(size=(400, 8)).astype("float32")
    rows[7] -= rows[7].mean() - np.float32(3e-6)
    report = gradcheck.profile_precision(lambda a: tf.tanh(tf.matmul(a, tf.ones([8, 1])) + 0.5), [tf.constant(rows)])
    assert report.ok, str(report)
    alone = gradcheck.profile_precision(lambda a: 1.0 / tf.matmul(a, tf.ones([8, 1])), [tf.constant(rows)])
    assert alone.worst.op_type == "MatMul", str(alone)


def test_what_is_zero_but_for_rounding_has_no_digits_to_lose():
    """The gradient of a bias before a normalization."""
    bias = tf.constant(np.random.default_rng(0).normal(size=8), f32)

    def gradient(a, b):
        with tf.GradientTape() as tape:
            tape.watch(b)
            shifted = a + b
            mean, variance = tf.nn.moments(shifted, 0)
            loss = tf.reduce_sum(tf.sin((shifted - mean) * tf.math.rsqrt(variance + 1e-3)))
        return tape.gradient(loss, b)

    assert gradcheck.profile_precision(gradient, [normal(32, 8), bias]).ok


@pytest.mark.parametrize(("name", "fn", "inputs"), HEALTHY, ids=[row[0] for row in HEALTHY])
def test_a_healthy_function_loses_none(name, fn, inputs):
    report = gradcheck.profile_precision(fn, inputs)
    assert report.ok, str(report)
    assert "no op loses digits" in str(report)


def test_in_float64_there_is_nothing_to_compare_with():
    report = gradcheck.profile_precision(tf.sin, [tf.constant(1.0, tf.float64)])
    assert report.ok
    assert report.notes == ("it computes in float64 throughout: there is nothing wider here to compare with",)


def test_where_float64_takes_another_branch_the_comparison_ends():
    def fn(a):
        return tf.cond(a + 1.0 > 1.0, lambda: tf.exp(a), lambda: tf.sin(a))

    report = gradcheck.profile_precision(fn, x(1e-9)[0])
    assert "in float64 another way is taken" in report.notes[-1]


def test_misuse_is_refused():
    with pytest.raises(
        TypeError, match=r"fn must be callable, found EagerTensor; write profile_precision\(fn, inputs\)"
    ):
        gradcheck.profile_precision(tf.constant(1.0), tf.sin)
    with pytest.raises(ValueError, match="returned nothing that can be differentiated"):
        gradcheck.profile_precision(lambda a: tf.cast(a, tf.int32), tf.constant(1.0))
