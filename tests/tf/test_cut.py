"""The op where the path of a gradient ends is named, with why and what is usually written instead."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradcheck import Verdict, check_gradients, check_model, check_tf_gradients

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
        lambda x: tf.numpy_function(lambda v: 2 * v, [x], x.dtype) + x,
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
    assert found.hint is None  # a factor, where there is one, comes of what is missing


def test_a_way_through_a_variable_that_is_assigned_is_a_cut_and_so_is_its_value_from_before():
    kept = tf.Variable(X, name="kept")

    def assigned(x):
        kept.assign(2 * x)
        return kept * x

    def added(x):
        kept.assign_add(x)
        return tf.reduce_sum(kept * kept)

    through, before = (found.cut for found in check_gradients(assigned, X).findings)
    assert (through.place.op_type, before.place.op_type) == ("ReadVariableOp", "ReadVariableOp")
    assert through.place.source == before.place.source == "return kept * x"
    assert "goes through a variable" in through.reason
    assert "is assigned before it is read" in before.reason
    first, second = check_gradients(added, X).findings
    assert (first.verdict, first.cut.place.source) == (Verdict.CUT, "return tf.reduce_sum(kept * kept)")
    assert second.verdict is Verdict.MATCH


def test_a_comparison_is_not_named_before_what_its_choice_is_between():
    def wrapped(x):  # as of an angle: the comparison comes first, and all of x goes through the decoder
        colors = tf.reshape(tf.where(x > 1, x - 1, x), (1, 2, 2, 1)) * tf.constant([0.3, 0.8, 0.9])
        return tf.image.hsv_to_rgb(colors)

    def to_zero(x):
        return tf.where(x < 0, tf.math.ceil(3 * x), tf.floor(3 * x))

    assert check_gradients(wrapped, X).worst.cut.place.op_type == "HSVToRGB"
    assert check_gradients(to_zero, X).worst.cut.place.op_type in ("Ceil", "Floor")


def test_what_is_constant_between_steps_is_no_partial_cut():
    assert check_gradients(lambda x: tf.round(3 * x) + tf.sign(x) + x, X).ok

    @tf.custom_gradient
    def wrong(x):
        return tf.sin(x), lambda up: up

    found = check_gradients(lambda x: tf.round(3 * x) + wrong(x), X).worst
    assert (found.cut, found.blame.op) == (None, "wrong")


@pytest.mark.parametrize(("term", "verdict"), [(lambda x: 0.0, Verdict.UNCONNECTED), (tf.round, Verdict.CUT)])
def test_what_varies_by_rounding_is_not_taken_for_moving(term, verdict):
    """As sums that threads take in varying order do."""
    rng = np.random.default_rng(0)

    def vary(y):
        return tf.numpy_function(lambda v: v * (1 + 1e-16 * rng.integers(-4, 5, v.shape)), [y], y.dtype)

    def fn(x, other):
        return tf.custom_gradient(lambda y: (tf.ensure_shape(vary(y), [50]), lambda up: up))(x**2) + 1e-9 * term(other)

    report = check_gradients(fn, [rng.normal(size=50), rng.normal(size=50)])
    assert [f.verdict for f in report.findings] == [Verdict.MATCH, verdict], str(report)


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


def test_what_python_reads_and_does_not_use_is_no_cut():
    w = tf.Variable(X, name="w")
    assert check_gradients(lambda x: x * 2.0 + 0.0 * float(np.sum(w.numpy() > 9.0)), X).ok
    assert check_gradients(lambda x: x * float(np.sum(w.numpy() > 0.0)) + tf.sin(w), X).ok


def test_a_variable_that_python_reads_and_the_tape_too_has_one_of_two_ways_cut():
    w, b = tf.Variable(X, name="w"), tf.Variable(0.7, name="b")
    first, second = check_gradients(lambda x: (x * w.numpy() + w, w * b + x), X).findings[1::2]
    assert (first.x, first.verdict, first.twin, first.cut.place.op) == ("w", Verdict.MISMATCH, False, "w")
    assert first.reason.startswith("one of several ways")
    along = np.abs(X).max() * np.array([1.0, -0.5, 1.0, 1.0])
    np.testing.assert_allclose([first.analytic, first.numeric], [along.sum(), along @ (1 + X)], rtol=1e-3)
    assert (second.x, second.verdict) == ("w", Verdict.MATCH)
    np.testing.assert_array_equal(w.numpy(), X)


M = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
COMPUTED = {
    "2 * w": lambda w: 2 * w,
    "w - 0.25": lambda w: w.numpy() - 0.25,
    "3 * w - 1": lambda w: 3 * w - 1,
    "tf.exp(w)": tf.exp,
    "w / tf.norm(w)": lambda w: w / tf.norm(w),
    "tf.transpose(w)": tf.transpose,
    "tf.reduce_mean(w, 1)": lambda w: tf.reduce_mean(w, 1),
    "tf.norm(w)": tf.norm,
    "w[2]": lambda w: w[2],
}


@pytest.mark.parametrize("text", COMPUTED)
def test_a_constant_that_was_computed_from_a_variable_outside_is_said_to_look_like_it(text):
    w = tf.Variable(M, name="w")
    kept = COMPUTED[text](w)
    report = check_gradients(lambda x: tf.reduce_sum(x * kept), X, wrt=[w])
    found = report.worst
    assert (found.verdict, found.cut.place.op, found.cut.place.op_type) == (Verdict.CUT, text, "Constant")
    assert f"takes a constant that looks like {text}" in str(report)
    assert "x * kept" in found.cut.place.source


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w * (1 + 1e-4 * tf.one_hot(2, 4)),
        lambda w: tf.random.stateless_normal([4, 4], [1, 2]),
        lambda w: tf.reduce_sum(w) * 0 + 2.0,
        lambda w: tf.sort(tf.reshape(w, [-1]))[6:10],
    ],
)
def test_a_constant_of_another_value_is_not_taken_for_a_variable(change):
    w = tf.Variable(M)
    read = change(w)
    with pytest.raises(ValueError, match=r"^wrt must name .*; read it inside the function, for a value that was read"):
        check_gradients(lambda x: x * read, X, wrt=[w])


@pytest.mark.parametrize(
    ("enters", "cut"),
    [
        (lambda value, fed: value, "v"),
        (lambda value, fed: 2 * value, "2 * v"),
        (lambda value, fed: fed, "v"),
        (lambda value, fed: value + np.float32([0, 1e-4, 0, 0]), None),
    ],
)
@pytest.mark.parametrize("resource", [True, False])
def test_a_variable_whose_value_a_session_gave_is_cut_where_it_enters(enters, cut, resource):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        fed = tf.compat.v1.placeholder(tf.float32, [4], name="fed")
        x = tf.compat.v1.placeholder(tf.float32, [4], name="x")
        v = tf.compat.v1.get_variable("v", initializer=X[::-1].copy(), use_resource=resource)
        zero = tf.compat.v1.get_variable("zero", initializer=np.zeros(4, np.float32), use_resource=resource)
        tf.compat.v1.get_variable("without_value", initializer=X, use_resource=resource)
        session.run([v.initializer, zero.initializer])
        value = session.run(v)
        y = x * enters(value, fed) + np.zeros(4, np.float32)
        xs = [x, *tf.compat.v1.trainable_variables()]
        report = check_tf_gradients(y, xs, feed_dict={x: X, fed: value})
    cuts = {found.x: found.cut.place.op for found in report.findings if found.verdict is Verdict.CUT}
    assert cuts == ({} if cut is None else {"v": cut})
    if cut is not None:
        assert "x * enters(value, fed)" in report.worst.cut.place.source


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


@tf.custom_gradient
def forgotten_beside_a_floor(x):
    return tf.where(tf.floor(x) == x, x * x, tf.abs(x) ** 1.5), lambda up: None


@tf.custom_gradient
def forgotten_around_a_call(x):
    return tf.function(tf.sin)(x), lambda up: None


FORGETFUL = [silent, forgotten, forgotten_beside_a_floor, forgotten_around_a_call]


@pytest.mark.parametrize(("fn", "culprit"), [(fn, fn.__name__) for fn in FORGETFUL])
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
