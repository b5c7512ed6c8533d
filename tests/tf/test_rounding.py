"""Rounding inside a function is heard where it can spoil differences, and only there."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradcheck import Verdict, check_gradients, check_model
from gradcheck._derivatives.freeing import mover
from gradcheck._derivatives.point import Point
from gradcheck._graph.evaluate import Runner
from gradcheck._graph.functions import trace_function
from gradcheck._graph.handed import hands_arguments
from gradcheck._graph.program import from_concrete
from gradcheck._graph.rounding import SEED, with_rounding, with_rounding_by_value

EPS = 2.0**-52


def heard(fn, x, entry=0):
    """Noise of the first output real when one entry moves, in units of rounding."""
    point = Point(trace_function(fn, [np.asarray(x, np.float64)]))
    moving = mover(point, [0])

    def directions(groups):
        move = np.zeros((len(groups), np.size(x)))
        move[:, entry] = 1.0
        return [move]

    return moving.rounding_noise(directions, 1, reduce=lambda samples, _: samples)[0, 0] / EPS


def test_a_single_rounding_is_heard_at_its_size():
    # Uniform in half a unit of rounding of 8, either way: 8 / sqrt(12), to the scatter of eight points.
    assert 0.4 < heard(lambda x: x * 8.0 / 1.0, [1.0]) / (8 / np.sqrt(12) * np.sqrt(2)) < 2.5


def test_what_does_not_move_is_not_heard():
    still = tf.constant(np.linspace(0.0, 1e6, 1000))
    assert heard(lambda x: x[:1] * 1.5 + 0.0 * tf.reduce_sum(tf.cos(still)), [1.0]) < 3
    others = np.r_[1.0, np.full(999, 1e6)]
    alone = heard(lambda x: tf.sin(x) * 1e-3, others)
    assert alone < 1e-2


def test_a_large_intermediate_is_heard_through_what_is_left_of_it():
    assert heard(lambda x: (x + 1e6) - 1e6, [1.2345678]) > 1e5


def test_where_rounding_keeps_the_function_still_it_is_heard_all_the_same():
    assert heard(lambda x: (x * 1e-12 + 1e6) - 1e6, [1.2345678]) > 1e5


INSIDE = {
    "a loop": lambda x: tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, tf.sin(3.0 * y)), (0, x))[1],
    "a branch": lambda x: tf.cond(x < 1.0, lambda: tf.sin(3.0 * x), lambda: x),
    "a call": tf.function(lambda y: tf.sin(3.0 * y)),
}


@pytest.mark.parametrize("where", INSIDE)
def test_one_program_rounds_anew_for_every_seed(where):
    program = from_concrete(tf.function(INSIDE[where]).get_concrete_function(tf.TensorSpec([], tf.float64)))
    unit, seeds = 2.0**-30, np.array([1, 2, 1, 3], np.int32)
    moved = Runner(with_rounding(program, None, unit=unit)).run_batch({SEED: seeds}, [np.array(0.7), None])
    plain, found = Runner(program).run([np.array(0.7)])[0], moved[0]
    assert hands_arguments(program)
    assert found[0] == found[2]
    assert len({*found.tolist(), float(plain)}) == 4
    np.testing.assert_allclose(found, plain, rtol=200 * unit)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
def test_noise_follows_the_size_of_the_function(scale):
    ratio = heard(lambda x: tf.exp(x) * scale, [0.7]) / heard(tf.exp, [0.7]) / scale
    assert 0.2 < ratio < 5


ALIKE = np.ones((4, 4)) + 1e-4 * np.random.default_rng(0).normal(size=(4, 4))  # its condition is some 1e5
CANCELLING = {
    "softmax, saturated": (tf.nn.softmax, np.array([0.0, -700.0, 30.0])),
    "determinant of rows alike": (tf.linalg.det, ALIKE),
}


@pytest.mark.parametrize("mode", ["directional", "elementwise"])
@pytest.mark.parametrize("name", CANCELLING)
def test_a_gradient_that_rounds_where_large_terms_cancel_is_not_called_wrong(name, mode):
    fn, x = CANCELLING[name]
    verdicts = {check_gradients(fn, [x], mode=mode, seed=seed).verdict for seed in range(12)}
    assert verdicts == {Verdict.MATCH}


@pytest.mark.parametrize("mode", ["directional", "elementwise", "jacobian"])
def test_what_such_a_gradient_is_forgiven_hides_no_defect(mode):
    @tf.custom_gradient
    def determinant(x):
        value = tf.linalg.det(x)
        exact = value * tf.transpose(tf.linalg.inv(x))
        return value, lambda up: up * exact * (1 + 1e-6 * tf.eye(4, dtype=x.dtype))

    report = check_gradients(determinant, [ALIKE], mode=mode)
    assert report.verdict is Verdict.MISMATCH
    assert report.findings[0].index in {(k, k) for k in range(4)}


def normalized_then_summed(x, bias):
    shifted = x + bias
    mean, variance = tf.nn.moments(shifted, [0])
    return tf.reduce_sum((shifted - mean) / tf.sqrt(variance + tf.cast(1e-3, x.dtype)), axis=1) ** 2


NOTHING = {
    "a sum of softmax": (lambda x: tf.reduce_sum(tf.nn.softmax(x)), [np.array([0.3, -1.2, 0.7])]),
    "two ways to a logarithm": (
        lambda x: tf.reduce_logsumexp(x) - tf.math.log(tf.reduce_sum(tf.exp(x))),
        [np.array([0.3, -1.2, 0.7])],
    ),
    "a bias before a batch norm": (
        normalized_then_summed,
        [np.random.default_rng(0).normal(size=(6, 3)), np.array([0.1, -0.2, 0.3])],
    ),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mode", ["directional", "elementwise", "jacobian"])
@pytest.mark.parametrize("name", NOTHING)
def test_a_gradient_that_cancels_to_nothing_matches(name, mode, dtype):
    fn, inputs = NOTHING[name]
    report = check_gradients(fn, [x.astype(dtype) for x in inputs], mode=mode)
    assert {finding.verdict for finding in report.findings} == {Verdict.MATCH}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mode", ["directional", "elementwise", "jacobian"])
def test_a_gradient_that_should_cancel_to_nothing_and_does_not_is_wrong(mode, dtype):
    @tf.custom_gradient
    def softmax(x):
        y = tf.nn.softmax(x)
        return y, lambda up: y * (up - tf.reduce_sum(up * y) * (1 - 1e-4))

    report = check_gradients(lambda x: tf.reduce_sum(softmax(x)), [np.array([0.3, -1.2, 0.7], dtype)], mode=mode)
    assert report.verdict is Verdict.MISMATCH


def test_a_narrow_gradient_that_is_right_is_within_what_is_said_to_be_allowed():
    """What is shown is the gradient in float32, and what is compared the one of the twin."""
    x = np.linspace(-3, 3, 16, dtype=np.float32) + 100
    found = check_gradients(lambda x: tf.reduce_sum(((x - tf.reduce_mean(x)) / 2) ** 3), [x], mode="elementwise").worst
    assert found.verdict is Verdict.MATCH
    assert 0 < found.excess <= 1


@tf.custom_gradient
def doubled_in_bfloat16(x):
    return tf.identity(x), lambda up: up * (2 if x.dtype == tf.bfloat16 else 1)


@pytest.mark.parametrize("wrong", [False, True])
def test_what_a_narrower_dtype_inside_makes_of_sums_is_said_and_is_no_fault(wrong):
    """A sum over thousands of pixels loses a tenth of itself in bfloat16; a gradient twice as large is no rounding."""
    keras.utils.set_random_seed(1)
    convolution = keras.layers.Conv2D(10, 1, dtype="mixed_bfloat16")
    after = keras.layers.Lambda(doubled_in_bfloat16 if wrong else tf.identity, dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((16, 16, 3)), convolution, after])
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(4, 16, 16, 3)).astype(np.float32), rng.integers(0, 10, (4, 16, 16))
    report = check_model(model, x, y, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert report.ok is not wrong, str(report)
    assert any("inside, the function computes in bfloat16" in note for note in report.notes) is not wrong


@tf.custom_gradient
def losing_a_term(x):
    """A part in 10,000 of its gradient is too small for float32 on the way, and nothing of it is left."""

    def gradient(upstream):
        small = 1e-4 * 2.0 * x * upstream
        for factor in (1e-25, 1e-25, 1e25, 1e25):
            small *= factor
        return (1.0 - 1e-4) * 2.0 * x * upstream + small

    return x * x, gradient


def test_what_is_wrong_in_float32_alone_and_by_the_same_nearby_is_no_rounding():
    x = np.float32([0.3, -0.7, 1.2])
    report = check_gradients(losing_a_term, x)
    assert report.verdict is Verdict.MISMATCH, str(report)
    assert "right in float64 and wrong in float32" in report.worst.reason
    assert check_gradients(losing_a_term, x.astype(np.float64)).ok


def normalized(x):
    return (x - tf.reduce_mean(x)) / tf.math.reduce_std(x)


NOTHING_LEFT = {  # of the terms that cancel but rounding
    "mean of what is centred": (lambda x: tf.reduce_mean(x - tf.reduce_mean(x)), 5),
    "sum of what is normalized": (lambda x: tf.reduce_sum(normalized(x)), 6),
    "squares of what is normalized": (lambda x: tf.reduce_sum(normalized(x) ** 2), 6),
    "one entry at a time": (lambda x: tf.exp(tf.math.log(x)) - x, 7),
    "two forms of tanh": (lambda x: tf.tanh(x) - (tf.exp(x) - tf.exp(-x)) / (tf.exp(x) + tf.exp(-x)), 8),
}


@pytest.mark.parametrize("mode", ["auto", "directional", "elementwise"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("fn", "seed"), list(NOTHING_LEFT.values()), ids=list(NOTHING_LEFT))
def test_a_function_of_which_rounding_alone_is_left_has_no_kink_and_is_decided(fn, seed, dtype, mode):
    x = 1.0 + np.random.default_rng(seed).uniform(size=6)
    report = check_gradients(fn, [x.astype(dtype)], mode=mode)
    assert report.verdict is Verdict.MATCH, str(report)


@pytest.mark.parametrize(("mode", "bend"), [("auto", 1e-7), ("elementwise", 1e-7), ("directional", 1e-4)])
def test_a_faint_kink_is_one(mode, bend):
    x = np.array([0.0, 0.7, 0.0, -0.4])
    report = check_gradients(lambda x: tf.reduce_sum(tf.sin(x) + bend * tf.nn.relu(x)), [x], mode=mode)
    assert report.verdict is Verdict.NONSMOOTH, str(report)


@tf.custom_gradient
def excepted(c, y):
    return c * tf.exp(y), lambda up: (tf.where(c == 0, tf.zeros_like(c), up * tf.exp(y)), up * c * tf.exp(y))


@pytest.mark.parametrize("mode", ["jacobian", "elementwise", "directional"])
def test_a_gradient_that_is_wrong_at_one_value_alone_is_not_taken_for_rounding(mode):
    y = np.array([0.2, 0.7, -1.1])
    found = check_gradients(lambda b, y: excepted(b - 1.0, y), [np.array([0.4, 1.0, 2.5]), y], mode=mode).worst
    assert (found.verdict, found.x, found.index, found.wrong) == (Verdict.MISMATCH, "inputs[0]", (1,), 1)
    assert "right a rounding away" in found.reason
    assert found.blame.op == "excepted"


def iterated(x):
    """The root of y = cos(x y), found by Newton's steps until they stand still."""

    def step(y, _):
        z = y - (y - tf.cos(x * y)) / (1.0 + x * tf.sin(x * y))
        return z, tf.abs(z - y)

    return tf.while_loop(lambda y, moved: tf.reduce_any(moved > 2 * EPS * y), step, (tf.ones_like(x), x))[0]


def test_rounding_does_not_keep_a_loop_from_coming_to_rest():
    program = from_concrete(tf.function(iterated).get_concrete_function(tf.TensorSpec([2], tf.float64)))
    x = np.array([0.7, 1.3])
    for rounded in (with_rounding(program, 1, unit=8 * EPS), with_rounding_by_value(program, 8 * EPS)):
        found = Runner(rounded).run([x])[0]  # would run for ever
        assert 0 < np.max(np.abs(found - np.asarray(iterated(x)))) < 200 * EPS


def test_a_series_that_is_as_good_as_float32_is_not_blamed_on_the_better_formula_of_its_gradient():
    """The first term left out is 4 units of rounding of the sine, and its derivative 32 of the cosine."""

    def sine(wrong):
        @tf.custom_gradient
        def inner(x):
            series = sum((-1.0) ** (k // 2) / math.factorial(k) * x**k for k in (1, 3, 5, 7, 9))
            return series, lambda up: (1.0 + wrong) * up * tf.cos(x)

        return inner

    x = np.float32([0.3, -0.7, 1.2])
    assert check_gradients(sine(0.0), x).ok
    assert check_gradients(sine(1e-5), x).verdict is Verdict.MISMATCH
    assert not check_gradients(sine(0.0), x.astype(np.float64)).ok  # float64 asks for more


def test_a_custom_gradient_of_what_is_no_series_is_held_to_a_few_units_of_rounding():
    @tf.custom_gradient
    def square(x):
        return x * x, lambda up: up * 2.000004 * x

    assert check_gradients(square, np.float32([0.3, -0.7, 1.2])).verdict is Verdict.MISMATCH


def test_a_floor_of_whole_numbers_is_not_decided_by_rounding_that_does_not_occur():
    x, c = np.float32([0.5, 0.7, 1.2]), np.float32([4.0, 6.0, 2.0])
    found = check_gradients(lambda x, c: tf.exp(30.0 * tf.sin(x)) * tf.floor(c / 2.0), [x, c], wrt="inputs[0]")
    assert found.ok, found
