"""The op where the path of a gradient ends is named, with why and what is usually written instead."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradcheck import Verdict, check_gradients, check_model

X = np.array([0.3, -1.2, 2.1, 0.9], np.float32)


def in_numpy(x):
    return tf.numpy_function(np.sin, [x], tf.float32)


def in_python(x):
    return tf.py_function(lambda t: np.sin(t.numpy()), [x], tf.float32)


def through_a_variable():
    kept = tf.Variable(np.zeros(4, np.float32), trainable=False)

    def run(x):
        kept.assign(2 * x)
        return kept * 1.0

    return run


STRAIGHT = "straight through: x + tf.stop_gradient("
CUTS = {
    "round": (lambda x: tf.round(3 * x) ** 2, "Round", "rounding is constant", STRAIGHT + "tf.round(x) - x)"),
    "floor": (lambda x: tf.floor(3 * x), "Floor", "floor is constant", STRAIGHT + "tf.floor(x) - x)"),
    "floor division": (lambda x: x // 0.3, "FloorDiv", "floor division is constant", "a / b has a gradient"),
    "sign": (lambda x: 2 * tf.sign(x), "Sign", "sign is constant", "tf.tanh(k * x) is a smooth sign"),
    "integer cast": (
        lambda x: tf.cast(tf.cast(5 * x, tf.int32), tf.float32),
        "Cast", "a cast to an integer or bool dtype has no gradient", "stay in a floating dtype",
    ),
    "argmax": (
        lambda x: tf.cast(tf.argmax(x), tf.float32), "ArgMax", "argmax gives positions", "tf.reduce_max(x, axis)"
    ),
    "argmin, one-hot": (lambda x: tf.one_hot(tf.argmin(x), 4), "ArgMin", "argmin gives positions", "tf.reduce_min(x"),
    "positions of top_k": (
        lambda x: tf.cast(tf.math.top_k(x, 2).indices, tf.float32), "TopKV2", "whole numbers", "use its values"
    ),
    "comparison": (lambda x: tf.cast(x > 0.5, tf.float32), "Greater", "true or false", "tf.sigmoid(k * (a - b))"),
    "comparison in where": (lambda x: tf.where(x < 0.5, 1.0, 2.0), "Less", "true or false", "tf.where(a > b, p, q)"),
    "numpy_function": (in_numpy, "PyFunc", "does not see into tf.numpy_function", "@tf.custom_gradient around it"),
    "NumPy in py_function": (in_python, "EagerPyFunc", "NumPy and .numpy() cut it", "in place of NumPy and .numpy()"),
    "assignment": (through_a_variable(), "ReadVariableOp", "goes through a variable", "use the value itself"),
    "registered as None": (
        lambda x: tf.cast(tf.histogram_fixed_width(x, [-2.0, 2.0], 4), tf.float32),
        "HistogramFixedWidth", "gives no floating output", "soft bins",
    ),
    "registered as None, of floating values": (
        lambda x: tf.image.hsv_to_rgb(tf.sigmoid(x[:3])),
        "HSVToRGB", "is registered as not differentiable", "put a @tf.custom_gradient around HSVToRGB",
    ),
    "no gradient": (lambda x: tf.unique(x)[0] * 2, "Unique", "no gradient is registered", "custom_gradient around Uni"),
    "area": (
        lambda x: tf.image.resize(tf.reshape(x, (1, 2, 2, 1)), [1, 1], method="area"),
        "ResizeArea", "no gradient is registered", 'method="bilinear"',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fn", "op", "reason", "remedy"), list(CUTS.values()), ids=list(CUTS))
def test_a_cut_is_named_with_its_reason_and_remedy(fn, op, reason, remedy):
    report = check_gradients(fn, X)
    found = report.worst
    assert (found.verdict, report.ok, found.cut.place.op_type) == (Verdict.CUT, False, op)
    assert found.cut.place.file.endswith("test_cut.py")
    assert reason in found.cut.reason
    assert remedy in found.cut.remedy
    assert found.advice == f"{found.cut.remedy}; where the cut is meant, say so by tf.stop_gradient"
    assert found.advice in str(report)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: in_numpy(x) + x,
        lambda x: tf.reduce_sum(in_numpy(tf.exp(x)) * x),
        lambda x: tf.image.hsv_to_rgb(tf.sigmoid(x[:3])) + x[1:],
    ],
)
def test_a_cut_of_one_of_several_ways_is_named(fn):
    found = check_gradients(fn, X).worst
    assert (found.verdict, found.blame) == (Verdict.MISMATCH, None)
    assert found.cut.place.op_type in ("PyFunc", "HSVToRGB")
    assert found.cut.place.file.endswith("test_cut.py")
    assert found.reason.startswith("one of several ways")


def test_what_is_constant_between_steps_is_no_partial_cut():
    assert check_gradients(lambda x: tf.round(3 * x) + tf.sign(x) + x, X).ok

    @tf.custom_gradient
    def wrong(x):
        return tf.sin(x), lambda up: up

    found = check_gradients(lambda x: tf.round(3 * x) + wrong(x), X).worst
    assert (found.cut, found.blame.op) == (None, "wrong")


def test_an_intended_cut_is_none():
    report = check_gradients(lambda x: x * tf.stop_gradient(tf.round(x)), X)
    assert (report.ok, report.worst.cut) == (True, None)


def by_numpy(w):
    def run(x):
        return x * w.numpy()

    return run


def read_before(w):
    kept = tf.identity(w)
    return lambda x: x * kept


def array_in_a_function(w):
    kept = w.numpy()
    return tf.function(lambda x: x * kept)


@pytest.mark.parametrize("build", [by_numpy, read_before, array_in_a_function])
def test_a_variable_that_was_read_outside_is_cut_at_the_line_where_its_value_enters(build):
    w = tf.Variable(X, name="w")
    report = check_gradients(build(w), X[::-1], wrt=[w])
    found = report.worst
    assert (found.verdict, report.ok, found.x, found.analytic) == (Verdict.CUT, False, "w", None)
    assert (found.cut.place.op, found.cut.place.op_type) == ("w", "Variable")
    assert "x * " in found.cut.place.source
    assert "is made from the value of w" in str(report)
    assert "leave the variable out of wrt" in found.advice
    np.testing.assert_array_equal(w.numpy(), X)


def test_what_python_reads_of_a_variable_is_cut_without_being_asked_for():
    w, b = tf.Variable(X, name="w"), tf.Variable(2.0, name="b")

    def run(x):
        known = np.abs(x.numpy()).max() > 0
        scale = np.asarray(w)
        return x * scale * known + tf.reduce_sum(b).numpy()

    before = sys.getprofile()
    lines = {f.x: f.cut.place.source for f in check_gradients(run, X).findings if f.verdict is Verdict.CUT}
    assert lines == {"w": "scale = np.asarray(w)", "b": "return x * scale * known + tf.reduce_sum(b).numpy()"}
    assert sys.getprofile() is before


def test_what_python_reads_and_does_not_use_or_the_tape_sees_too_is_no_cut():
    w = tf.Variable(X, name="w")
    assert check_gradients(lambda x: x * 2.0 + 0.0 * float(np.sum(w.numpy() > 9.0)), X).ok
    assert check_gradients(lambda x: x * w.numpy() + w, X).ok


def test_a_constant_of_another_value_is_not_taken_for_a_variable():
    w = tf.Variable(X)
    read = tf.convert_to_tensor(w) * 2.0
    with pytest.raises(ValueError, match=r"^wrt must name .*; read it inside the function, for a value that was read"):
        check_gradients(lambda x: x * read, X, wrt=[w])


class Kept(keras.layers.Layer):
    def __init__(self, initializer):
        super().__init__(name="kept")
        self.w = self.add_weight(shape=[4], initializer=initializer, name="w")
        self.copied = self.w.numpy()

    def call(self, x):
        return x * self.copied


def test_the_weight_of_a_layer_that_was_copied_is_cut_unless_any_constant_may_have_its_value():
    found = check_model(Kept("random_normal"), X[None]).worst
    assert (found.verdict, found.cut.place.source) == (Verdict.CUT, "return x * self.copied")
    assert check_model(Kept("zeros"), X[None]).worst.verdict is Verdict.UNCONNECTED


def test_a_gradient_taken_inside_that_is_none_is_explained():
    w = tf.Variable(X)

    def run(x):
        read = w + 1.0
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(x * read)
        return tape.gradient(y, w)

    with pytest.raises(
        ValueError,
        match=r"found output: NoneType; .*; tape.gradient gives None where .* before `with tf.GradientTape\(\)`",
    ):
        check_gradients(run, X)


def test_what_python_cuts_of_one_way_is_blamed_though_tensorflow_cannot_add_the_ways():
    found = check_gradients(lambda x: in_python(x) + x, X).worst
    assert (found.verdict, found.blame.op_type) == (Verdict.MISMATCH, "EagerPyFunc")
    assert "in place of NumPy and .numpy()" in found.advice


@tf.custom_gradient
def right(x):
    return tf.sin(x), lambda up: up * tf.cos(x)


@tf.custom_gradient
def silent(x):
    return tf.sin(x), tf.zeros_like


@tf.custom_gradient
def forgotten(x):
    return tf.sin(x), lambda up: None


@tf.custom_gradient
def negated(x):
    return tf.sin(x), lambda up: -up * tf.cos(x)


@pytest.mark.parametrize(("fn", "culprit"), [(silent, "silent"), (forgotten, "forgotten")])
@pytest.mark.parametrize("around", [lambda fn, x: fn(right(x)) ** 2, lambda fn, x: right(tf.function(fn)(x) * 2)])
def test_of_several_custom_gradients_the_one_that_gives_nothing_is_the_cut(around, fn, culprit):
    found = check_gradients(lambda x: around(fn, x), X).worst
    assert found.verdict is Verdict.CUT
    assert (found.cut.place.op_type, found.cut.place.op) == ("custom_gradient", culprit)
    assert f"'{culprit}'" in found.cut.reason
    assert found.advice.endswith("where the cut is meant, say so by tf.stop_gradient")


def test_where_gradients_cancel_to_nothing_the_wrong_one_is_blamed_and_nothing_is_cut():
    found = check_gradients(lambda x: tf.reduce_sum(right(x) + negated(x)), X).worst
    assert (found.verdict, found.cut, found.blame.op) == (Verdict.CUT, None, "negated")
    assert "the sign is flipped" in found.hint
    assert check_gradients(lambda x: tf.reduce_sum(right(x) - right(x) + tf.nn.softmax(right(x))), X).ok
