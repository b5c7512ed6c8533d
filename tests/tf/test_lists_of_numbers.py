"""Lists of numbers are arrays wherever inputs are taken; what has no values is refused with what to write."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradcheck


def test_a_list_of_floats_is_added_as_numbers_and_not_strung_together():
    report = gradcheck.check_gradients(lambda a, b: a + b, [[1.0, 2.0], [3.0, 4.0]])
    assert [(finding.y, finding.x) for finding in report.findings] == [("output", "inputs[0]"), ("output", "inputs[1]")]
    assert report.ok


ROWS = [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("inputs", "taken"),
    [
        ([ROWS], [("float32", (2, 2))]),
        ([[[1, 2.5]]], [("float32", (1, 2))]),
        ([[1j, 2.0]], [("complex128", (2,))]),
        ([list(np.array([1.0, 2.0]))], [("float64", (2,))]),
        ({"x": ROWS}, [("float32", (2, 2))]),
        ([{"w": [1.0, 2.0]}], [("float32", (2,))]),
        ([([1.0, 2.0], 3.0)], [("float32", (2,)), ("float32", ())]),
        ([(1.0, 2.0)], [("float32", ()), ("float32", ())]),
        ([[[1.0], [2.0, 3.0]]], [("float32", (1,)), ("float32", (2,))]),
        ([[tf.ones(2), 1.0]], [("float32", (2,)), ("float32", ())]),
    ],
)  # fmt: skip
def test_what_is_one_array(inputs, taken):
    seen = []

    def fn(*args, **keywords):
        leaves = tf.nest.flatten([args, keywords])
        seen[:] = [(leaf.dtype.name, tuple(leaf.shape)) for leaf in leaves]
        return tf.add_n([tf.reduce_sum(tf.math.real(leaf)) for leaf in leaves])

    assert gradcheck.check_gradients(fn, inputs).ok
    assert seen == taken


def test_lists_of_whole_numbers_stay_lists():
    assert gradcheck.check_gradients(tf.reshape, [[1.0, 2.0], [2, 1]]).ok
    assert gradcheck.check_gradients(tf.nn.conv2d, [np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 1)), [1, 1], "SAME"]).ok


def test_numbers_in_lists_are_looked_through_for_nan():
    assert gradcheck.find_nonfinite(lambda x: x + tf.math.log(x), [[1.0, 0.0]]).op_type == "Log"
    assert gradcheck.profile_precision(lambda x: (x + 1e6) - 1e6, [[0.1, 0.2]]).worst.op_type == "Sub"


def test_a_batch_and_labels_of_a_model_may_be_lists():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert gradcheck.check_model(model, ROWS, [0, 1], loss=loss).ok


@pytest.mark.parametrize("ask", [gradcheck.check_gradients, gradcheck.find_nonfinite, gradcheck.profile_precision])
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (tf.data.Dataset.range(3), "inputs must be one batch of values, found a Dataset; write next(iter(dataset))"),
        ([iter([1.0])], "inputs[0] must be values, found an iterator (list_iterator), which ends after the first of "
         "many runs; write np.array(list(iterator))"),
        (keras.Input((3,)), "inputs must have values, found a KerasTensor, which stands for the input of a Keras "
         "model; write check_gradients(model, x) with an array x"),
    ],
    ids=["dataset", "iterator", "symbol"],
)  # fmt: skip
def test_what_has_no_values_is_refused(ask, inputs, message):
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        ask(tf.square, inputs)
