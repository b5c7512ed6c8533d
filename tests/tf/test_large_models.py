"""Large functions are sampled on the branch on which their base point lies, with few evaluations."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck import Verdict
from gradcheck._check.options import options
from gradcheck._check.work import begin
from gradcheck._derivatives import branch
from gradcheck._graph.functions import trace_function
from tests.gallery import normal

N = 2**16  # more entries than are moved one by one


def kinks(x):
    y = (
        tf.nn.relu(x)
        + tf.nn.leaky_relu(tf.sin(3 * x))
        + tf.abs(tf.cos(5 * x))
        + tf.maximum(x, 0.3) * tf.minimum(x, 1.0)
    )
    pooled = tf.nn.max_pool2d(tf.reshape(y, [1, 256, 256, 1]), 2, 2, "VALID")
    return tf.reduce_sum(pooled**2) / N


@tf.custom_gradient
def wrong_relu(x):
    return tf.nn.relu(x), lambda up: up * tf.cast(x > -1e-2, x.dtype)


def convolutions():
    keras.utils.set_random_seed(0)
    x = image = keras.Input((16, 16, 3))
    for width in (32, 64):
        y = keras.layers.Conv2D(width, 3, padding="same")(x)
        y = keras.layers.ReLU()(keras.layers.BatchNormalization()(y))
        x = keras.layers.MaxPooling2D()(y + keras.layers.Conv2D(width, 1)(x))
        x = keras.layers.LeakyReLU()(keras.layers.Conv2D(width, 3, padding="same")(x))
    x = keras.layers.Dense(5, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, x), normal(2, 16, 16, 3, dtype=np.float32), np.array([1, 2])


def central_difference(fn, x, direction, step, *, on_branch):
    mover = begin(trace_function(fn, [x]), options()).movers[0]
    samples = mover.along([direction], np.array([-step, step]), on_branch=on_branch)
    return float(samples[1, 0] - samples[0, 0]) / (2 * step)


def test_branches_held_make_a_function_smooth_and_leave_its_derivative_as_it_is():
    x, direction = normal(N), normal(N, seed=1)
    with tf.GradientTape() as tape:
        variable = tf.constant(x)
        tape.watch(variable)
        y = kinks(variable)
    exact = float(tf.reduce_sum(tape.gradient(y, variable) * direction))
    steps = (2.0**-9, 2.0**-10)
    held = [abs(central_difference(kinks, x, direction, h, on_branch=True) - exact) for h in steps]
    plain = [abs(central_difference(kinks, x, direction, h, on_branch=False) - exact) for h in steps]
    # Half the step leaves a quarter of the error where a function is smooth.
    assert held[0] / held[1] == pytest.approx(4.0, rel=0.05)
    assert plain[1] > 10 * held[1]


@pytest.mark.parametrize("training", [False, True])
def test_a_large_network_of_rectifiers_takes_one_look(training):
    model, x, y = convolutions()
    loss = keras.losses.SparseCategoricalCrossentropy()
    report = gradcheck.check_model(model, x, y, loss=loss, training=training, mode="directional")
    assert report.verdict is Verdict.MATCH, str(report)
    assert report.cost.evaluations <= 4 * 9 + 8
    assert max(f.error for f in report.findings) < 1e-6 * max(abs(f.analytic) for f in report.findings)


def test_a_kink_at_the_point_itself_is_not_held():
    x = normal(N)
    x[:100] = 0.0
    report = gradcheck.check_gradients(
        lambda x: tf.reduce_sum(tf.nn.relu(x) ** 2 + tf.nn.relu(x)), [x], mode="directional"
    )
    assert report.verdict is Verdict.NONSMOOTH, str(report)


@pytest.mark.slow
def test_a_wrong_gradient_close_to_many_kinks_is_found():
    x = normal(N)
    report = gradcheck.check_gradients(lambda x: tf.reduce_sum(wrong_relu(tf.sin(x))), [x], mode="directional")
    assert report.verdict is Verdict.MISMATCH, str(report)
    assert -1e-2 < np.sin(x[report.worst.index]) < 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_large_gradient_that_ignores_its_upstream_one_is_found(dtype):
    deaf = tf.custom_gradient(lambda x: (tf.reduce_sum(x * x), lambda up: 2.0 * x))
    heard = tf.custom_gradient(lambda x: (tf.reduce_sum(x * x), lambda up: 2.0 * x * up))
    x = np.random.default_rng(0).normal(size=2**15 + 1).astype(dtype)
    report = gradcheck.check_gradients(deaf, x, mode="directional")
    assert report.verdict is Verdict.MISMATCH, report
    assert "linear in the cotangent" in str(report)
    (finding,) = gradcheck.check_gradients(heard, x, mode="directional").findings
    assert (finding.verdict, finding.points) == (Verdict.MATCH, 7)  # what was sampled, as the text says


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_large_gradient_that_varies_from_run_to_run_is_found(dtype):
    """Also in float32, where another run is made only if the gradients for different cotangents do not fit."""

    def noisy(up):
        return up * (1 + 1e-2 * np.random.default_rng().normal(size=up.shape)).astype(dtype)

    @tf.custom_gradient
    def fn(x):
        return tf.identity(x), lambda up: tf.ensure_shape(tf.numpy_function(noisy, [up], up.dtype), up.shape)

    x = normal(N, dtype=dtype)
    report = gradcheck.check_gradients(lambda x: tf.reduce_sum(fn(x) ** 2), [x], mode="directional")
    assert report.verdict is Verdict.NONDETERMINISTIC, str(report)
    assert "two runs of the gradient at the same point differ" in str(report)


@pytest.mark.parametrize(("size", "verdict"), [(1e-16, Verdict.MATCH), (1e-9, Verdict.NONDETERMINISTIC)])
def test_a_gradient_that_cancels_to_the_varying_rounding_of_its_terms_is_zero(size, verdict):
    """As that of a bias before a batch normalization, which threads sum in varying order."""
    runs = itertools.count()

    @tf.custom_gradient
    def centered(a, bias):
        def grad(up):
            return up, tf.ensure_shape(tf.numpy_function(lambda v: np.full(1, size * next(runs)), [up], up.dtype), [1])

        return a + bias - bias, grad

    report = gradcheck.check_gradients(lambda bias: centered(normal(5), bias), np.full(1, 0.5))
    assert report.verdict is verdict, str(report)


def test_a_large_function_that_varies_from_run_to_run_is_found():
    def noisy(y):
        return y * (1 + 1e-2 * np.random.default_rng().normal())

    x = normal(N)
    vary = tf.custom_gradient(lambda y: (tf.numpy_function(noisy, [y], y.dtype), lambda up: up))
    report = gradcheck.check_gradients(lambda x: vary(tf.reduce_sum(tf.nn.relu(x) ** 2)), [x], mode="directional")
    assert report.verdict is Verdict.NONDETERMINISTIC, str(report)
    assert "two runs of the function at the same point differ" in str(report)


@pytest.mark.parametrize("fn", ["relu", "maximum", "max pool", "below rounding"])
def test_only_ops_with_an_input_next_to_their_kink_are_looked_at_closely(fn, monkeypatch):
    looked = []
    kinked = branch._kinked
    monkeypatch.setattr(branch, "_kinked", lambda *given: looked.append(given[5]) or kinked(*given))
    x = np.abs(normal(N)) + 0.1
    x[7] = {"relu": 0.0, "maximum": 0.5, "max pool": 0.1, "below rounding": 1e-14}[fn]
    ops = {
        "relu": tf.nn.relu,
        "maximum": lambda x: tf.maximum(x, 0.5),
        "max pool": lambda x: tf.nn.max_pool2d(tf.reshape(x, [1, 256, 256, 1]), 2, 2, "VALID"),
        "below rounding": tf.nn.relu,
    }
    report = gradcheck.check_gradients(
        lambda x: tf.reduce_sum(ops[fn](x)) + tf.reduce_sum(tf.abs(x + 3.0)), [x], mode="directional"
    )
    assert [len(near) for near in looked][:1] == [1]
    assert report.verdict is (Verdict.MATCH if fn == "max pool" else Verdict.NONSMOOTH), str(report)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_large_model_with_a_gelu_takes_few_evaluations_in_any_precision(policy):
    """The gradient of erf holds a rounded constant; and in mixed precision linearity holds to the narrow rounding."""
    keras.utils.set_random_seed(0)
    dense = [keras.layers.Dense(180, activation="gelu", dtype=policy) for _ in range(2)]
    model = keras.Sequential([keras.Input((64,)), *dense, keras.layers.LayerNormalization(dtype=policy)])
    x, y = normal(4, 64, dtype=np.float32), normal(4, 180, dtype=np.float32)
    report = gradcheck.check_model(model, x, y, loss="mse", mode="directional")
    assert report.verdict is Verdict.MATCH, str(report)
    assert report.cost.evaluations < 400


@pytest.mark.parametrize("zeros", [1, N // 3])
@pytest.mark.slow
def test_kinks_hide_no_wrong_entry_and_are_no_fault_themselves(zeros):
    """Along a random direction the slopes on both sides of zeros leave room for what is wrong elsewhere."""
    x = normal(N, dtype=np.float32)
    x[:zeros] = 0.0

    def size(error):
        return tf.custom_gradient(
            lambda x: (tf.abs(x), lambda up: up * tf.sign(x) * (1 + error * tf.one_hot(N - 11, N)))
        )

    right, wrong = (gradcheck.check_gradients(size(error), [x]) for error in (0.0, 0.01))
    assert (right.verdict, right.ok) == (Verdict.NONSMOOTH, True), str(right)
    assert wrong.verdict is Verdict.MISMATCH, str(wrong)
    assert right.cost.evaluations < 500


@pytest.mark.slow
def test_kinks_under_cotangents_of_both_signs_are_no_fault():
    x = normal(N, dtype=np.float32)
    x[::2] = 0.0
    report = gradcheck.check_gradients(tf.nn.relu, x)
    assert (report.verdict, report.ok) == (Verdict.NONSMOOTH, True), str(report)


def test_what_is_stopped_in_a_branch_is_held_beside_choices_that_are_held():
    """The branch computes base values along twice over, and names them apart."""

    def fn(x):
        y = tf.cond(tf.reduce_sum(x) > -1e9, lambda: x * tf.stop_gradient(tf.exp(x)), lambda: x)
        return tf.reduce_sum(tf.nn.relu(y)) / N

    report = gradcheck.check_gradients(fn, [normal(N)], mode="directional")
    assert report.verdict is Verdict.MATCH, str(report)
