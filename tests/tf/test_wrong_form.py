"""A gradient function that gives a wrong shape, or a wrong number of gradients, is a fault of the inputs behind it."""

import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck import Verdict

WIDE = np.arange(1.0, 7.0).reshape(3, 2)
ROW = np.array([0.5, -1.5])
UNSUMMED = (
    "the gradient function gives shape (3, 2) for an argument of shape (2,): it must be summed over the axes along "
    "which the argument was broadcast"
)


@tf.custom_gradient
def unsummed(x, row):
    return x + row, lambda up: (up, up)


@tf.custom_gradient
def one_too_few(x, row):
    return x + row, lambda up: (up,)


@tf.custom_gradient
def one_too_many(x, row):
    return x * row, lambda up: (up * row, tf.reduce_sum(up * x, axis=0), up)


@tf.custom_gradient
def of_another_shape(x):
    return x[:, 0], lambda up: up


def plain(x, row, other):
    return tf.sin(unsummed(2 * x, row)) * other


def in_cond(x, row, other):
    return other * tf.cond(x[0, 0] > 0, lambda: unsummed(x, row), lambda: x)


def in_nested_functions(x, row, other):
    return tf.function(tf.function(unsummed))(x * 2, row) + other


def verdicts(report):
    return {finding.x: finding.verdict for finding in report.findings}


@pytest.mark.parametrize(
    "fn", [plain, tf.function(plain), in_cond, in_nested_functions], ids=["plain", "tf.function", "cond", "nested"]
)
def test_a_gradient_that_was_not_summed_is_a_fault_of_that_input_alone(fn):
    report = gradcheck.check_gradients(fn, [WIDE, ROW, WIDE + 1])
    assert verdicts(report) == {
        "inputs[0]": Verdict.MATCH,
        "inputs[1]": Verdict.MISMATCH,
        "inputs[2]": Verdict.MATCH,
    }
    assert report.worst.reason == UNSUMMED
    assert report.worst.blame.file.endswith("test_wrong_form.py")


def test_in_a_loop_all_that_goes_round_is_at_fault():
    def fn(x, row, other):
        return other * tf.while_loop(lambda i, a: i < 2, lambda i, a: (i + 1, unsummed(a, row)), [0, x])[1]

    report = gradcheck.check_gradients(fn, [WIDE, ROW, WIDE + 1])
    assert [f.verdict.name for f in report.findings] == ["MISMATCH", "MISMATCH", "MATCH"]
    assert report.findings[1].reason == UNSUMMED


def test_a_fault_of_a_constant_is_one_of_the_inputs_beside_it():
    """TensorFlow refuses that gradient as a whole, whoever asks for it."""
    report = gradcheck.check_gradients(lambda x, other: unsummed(x, tf.constant(ROW)) + other, [WIDE, WIDE])
    assert [f.verdict.name for f in report.findings] == ["MISMATCH", "MATCH"]


def test_the_variable_that_a_wrong_gradient_is_for_is_named():
    row = tf.Variable(ROW, name="row")
    report = gradcheck.check_gradients(lambda x: unsummed(x, 2 * row), [WIDE])
    assert verdicts(report) == {"inputs[0]": Verdict.MATCH, "row": Verdict.MISMATCH}


@pytest.mark.parametrize(("fn", "wrong"), [(one_too_few, "1 too few"), (one_too_many, "1 too many")])
def test_a_wrong_number_of_gradients_is_a_fault_of_all_arguments(fn, wrong):
    report = gradcheck.check_gradients(lambda x, row, other: fn(x, row) + other, [WIDE, ROW, WIDE])
    assert [f.verdict.name for f in report.findings] == ["MISMATCH", "MISMATCH", "MATCH"]
    assert report.worst.reason == (
        f"the gradient function gives {wrong}: it must give one gradient (or None) per argument"
    )


def test_a_shape_that_is_no_broadcast_is_not_called_one():
    report = gradcheck.check_gradients(of_another_shape, [WIDE])
    assert report.worst.reason == "the gradient function gives shape (3,) for an argument of shape (3, 2)"
    assert report.worst.blame.file.endswith("test_wrong_form.py")  # though nothing of the user's calls it
    assert report.worst.blame.op == "of_another_shape"


def test_a_second_order_is_not_asked_of_a_gradient_that_cannot_be_built():
    report = gradcheck.check_gradients(unsummed, [WIDE, ROW], order=2)
    assert [f.verdict.name for f in report.findings] == ["MATCH", "MISMATCH"]


def test_a_function_of_the_users_is_left_as_it_was():
    fn = tf.function(plain)
    gradcheck.check_gradients(fn, [WIDE, ROW, WIDE])
    x, row = tf.constant(WIDE), tf.constant(ROW)
    with tf.GradientTape() as tape:
        tape.watch([x, row])
        with pytest.raises(ValueError, match="Incompatible shapes between op input"):
            tape.gradient(fn(x, row, x), [x, row])
