"""Second derivatives: wrong ones of right first ones are found, blamed, and seen not to be symmetric."""

import numpy as np
import pytest
import tensorflow as tf

from gradcheck import Verdict, check_gradients

X = np.array([[0.3, -1.2, 2.1], [0.9, -0.4, 0.2]], np.float32)
FORM = tf.constant([[1.0, 0.5, 0.0], [0.5, 2.0, 0.3], [0.0, 0.3, 1.0]])
SKEW = tf.constant([[1.0, 1.0, 0.0], [0.0, 2.0, 0.3], [0.0, 0.3, 1.0]])


def form(wrong):
    """x A x / 2, right in the first derivative, with another matrix in the second one if `wrong`."""

    @tf.custom_gradient
    def slope(x):
        return x @ FORM, lambda upper: upper @ (SKEW if wrong else FORM)

    @tf.custom_gradient
    def value(x):
        return 0.5 * tf.reduce_sum(x * (x @ FORM)), lambda up: up * slope(x)

    return value


def told(report):
    return [found for found in report.findings if found.reason and "not symmetric" in found.reason]


def test_a_hessian_that_is_not_symmetric_is_told_and_what_makes_it_is_blamed():
    report = check_gradients(lambda x: form(wrong=True)(tf.sin(x)), [X], order=2)
    (odd,) = told(report)
    assert (odd.verdict, odd.x) == (Verdict.MISMATCH, "all inputs at once")
    assert report.worst.blame.op == "slope"
    assert report.findings[0].ok  # the first derivative


@pytest.mark.parametrize(
    "fn",
    [
        lambda x, y: form(wrong=False)(tf.sin(x)) * y,
        lambda x, y: tf.reduce_sum(tf.nn.softmax(x * y)[:, 0] * tf.stop_gradient(x)[:, 1]),
        lambda x, y: tf.linalg.logdet(tf.transpose(x) @ x + y * tf.eye(3)),
    ],
)
def test_a_right_hessian_is_symmetric(fn):
    report = check_gradients(fn, [X, np.float32(1.5)], order=2)
    assert report.ok, str(report)
    assert not told(report)


def test_symmetry_is_not_asked_where_the_first_derivative_is_wrong():
    wrong = tf.custom_gradient(lambda x: (tf.reduce_sum(x**2), lambda up: up * tf.cumsum(x)))
    report = check_gradients(wrong, [X], order=2)
    assert not report.ok
    assert not told(report)


def through_kept_output(x):
    @tf.custom_gradient
    def slope(x, up):
        y = tf.tanh(x)
        return up * (1 - y**2), lambda upper: (-up * y * (1 - y**2) * upper, upper * (1 - y**2))  # 2 forgotten

    return tf.custom_gradient(lambda x: (tf.tanh(x), lambda up: slope(x, up)))(x)


def in_a_loop(x):
    return tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, through_kept_output(a) * 1.5), [0, x])[1]


def in_a_nested_function(x):
    return tf.function(lambda x: tf.reduce_sum(through_kept_output(x) * x))(x)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: tf.reduce_sum(through_kept_output(x) ** 2),
        pytest.param(in_a_loop, marks=pytest.mark.slow),
        in_a_nested_function,
    ],
)
def test_a_wrong_second_derivative_is_blamed_wherever_it_is(fn):
    report = check_gradients(fn, [X], order=2)
    first, *second = report.findings
    assert first.ok
    assert report.worst in second
    assert (report.worst.blame.op_type, report.worst.blame.op) == ("custom_gradient", "slope")
    assert report.worst.blame.file.endswith("test_second_order.py")


@pytest.mark.parametrize("fn", [tf.abs, lambda x: tf.maximum(x, 0.1 * x[::-1]), lambda x: tf.reduce_max(x, axis=1)])
def test_a_gradient_that_is_constant_between_kinks_has_none(fn):
    assert check_gradients(fn, X, order=2).ok


def test_a_second_derivative_that_tensorflow_lacks_is_a_cut():
    report = check_gradients(tf.nn.softsign, X, order=2)
    assert report.verdict is Verdict.CUT
    assert report.worst.cut.place.op_type == "SoftsignGrad"
