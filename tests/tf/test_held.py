"""What is held stays at its base value while the inputs move: the numeric side of tf.gradients(stop_gradients=...)."""

import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck import Gradients, Verdict
from gradcheck._derivatives.freeing import mover
from gradcheck._derivatives.point import Point
from gradcheck._graph.functions import trace_function
from gradcheck._graph.held import hold
from tests import gallery

X = np.array([0.4, -0.9])
STEP = 2.0**-10


def moved(fn, inputs, by):
    """Outputs when all inputs move, and what is held stays, minus the base outputs."""
    point = Point(trace_function(fn, inputs))
    one = mover(point, range(len(point.traced.sources)))
    return one.at([np.full((1, base.size), by) for base in one.base])[0]


def stopped(x):
    return x * tf.stop_gradient(tf.exp(x))


def test_what_is_stopped_stays_and_the_rest_moves():
    np.testing.assert_allclose(moved(stopped, [X], STEP), STEP * np.exp(X), rtol=1e-12)  # x * exp(X) is linear in x


def test_without_a_stop_everything_moves():
    expected = (X + STEP) * np.exp(X + STEP) - X * np.exp(X)
    np.testing.assert_allclose(moved(lambda x: x * tf.exp(x), [X], STEP), expected, rtol=1e-11)


def unrolled(x, base):
    """What `gallery.stopped_in_while` computes, the stopped values taken along the base."""
    moving, still = x, base
    for _ in range(3):
        moving, still = moving * (np.sin(still) + base) + x, still * (np.sin(still) + base) + base
    return moving


def test_stops_in_a_loop_follow_the_base_through_every_iteration():
    expected = unrolled(X + STEP, X) - unrolled(X, X)
    np.testing.assert_allclose(moved(gallery.stopped_in_while, [X], STEP), expected, rtol=1e-11)


def test_a_stop_in_the_branch_not_taken_holds_nothing_of_the_other():
    def fn(x):
        return tf.cond(tf.reduce_sum(x) > 100, lambda: tf.stop_gradient(x), lambda: x * x)

    np.testing.assert_allclose(moved(fn, [X], STEP), (X + STEP) ** 2 - X**2, rtol=1e-11)


def test_a_condition_that_flips_when_inputs_move_is_followed():
    def fn(x):
        return tf.cond(x[0] > 0.4, lambda: x * tf.stop_gradient(x), lambda: 3.0 * tf.stop_gradient(x) + x)

    np.testing.assert_allclose(moved(fn, [X], STEP), (X + STEP) * X - 4 * X, rtol=1e-11)


NESTED = (
    gallery.stopped_in_nested_while,
    gallery.stopped_in_cond_in_while,
    gallery.stopped_in_function,
    gallery.stopped_in_cond,
    gallery.stopped_twice,
    gallery.straight_through,
)


@pytest.mark.parametrize("fn", NESTED, ids=lambda fn: fn.__name__)
def test_the_slope_along_a_direction_is_what_tf_gradients_gives(fn):
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(fn(x))
    slope = float(tf.reduce_sum(tape.gradient(y, x)))
    difference = (moved(fn, [X], STEP) - moved(fn, [X], -STEP)).sum() / (2 * STEP)
    assert difference == pytest.approx(slope, rel=1e3 * STEP**2)


# ------------------------------------------------------------------------------- stop_gradients= of tf.gradients


def three_stages(x):
    a = tf.sin(x)
    b = a * x
    c = tf.exp(b) + a
    return a, b, c


def gradients_of(choose):
    def fn(x):
        a, b, c = three_stages(x)
        return Gradients(**choose(x, a, b, c))

    return fn


CHOICES = {
    "stop a": lambda x, a, b, c: {"ys": c, "xs": x, "stop_gradients": a},
    "stop b": lambda x, a, b, c: {"ys": c, "xs": x, "stop_gradients": [b]},
    "stop a and b": lambda x, a, b, c: {"ys": c * x, "xs": x, "stop_gradients": [a, b]},
    "to a, stop b": lambda x, a, b, c: {"ys": c, "xs": a, "stop_gradients": [b]},
    "to a and b": lambda x, a, b, c: {"ys": c, "xs": [a, b]},
    "to a and b, both stopped": lambda x, a, b, c: {"ys": c, "xs": [a, b], "stop_gradients": [a, b]},
    "to x, a and b, all stopped": lambda x, a, b, c: {"ys": [c, b], "xs": [x, a, b], "stop_gradients": [x, a, b]},
    "stop c itself": lambda x, a, b, c: {"ys": c + x, "xs": x, "stop_gradients": [c]},
    "with cotangents": lambda x, a, b, c: {
        "ys": [c, a],
        "xs": [x],
        "grad_ys": [np.array([2.0, -1.0]), None],
        "stop_gradients": [b],
    },
}


@pytest.mark.parametrize("name", CHOICES)
def test_stop_gradients_hold_what_tensorflow_stops(name):
    report = gradcheck.check_gradients(gradients_of(CHOICES[name]), X)
    assert report.verdict is Verdict.MATCH, report


def test_a_gradient_that_ignores_stop_gradients_would_be_seen():
    """The derivative past a stop is another number: what the check compares with is not what it would be without."""
    held = gradcheck.check_gradients(gradients_of(CHOICES["stop a"]), X, mode="elementwise")
    free = gradcheck.check_gradients(gradients_of(lambda x, a, b, c: {"ys": c, "xs": x}), X, mode="elementwise")
    assert held.ok
    assert free.ok
    assert abs(held.worst.numeric - free.worst.numeric) > 1e-3


@tf.custom_gradient
def passes_what_is_stopped(x):
    return x * tf.stop_gradient(tf.exp(x)), lambda up: up * (1 + x) * tf.exp(x)


def test_a_custom_gradient_that_passes_through_a_stop_is_wrong():
    assert gradcheck.check_gradients(passes_what_is_stopped, [X]).verdict is Verdict.MISMATCH


def test_the_report_lists_what_was_held_and_where():
    report = gradcheck.check_gradients(gallery.stopped, [X])
    (held,) = {h for f in report.findings for h in f.held}
    assert held.reason == "stop_gradient"
    assert held.place.op_type == "StopGradient"
    assert held.place.file.endswith("gallery.py")
    assert "tf.stop_gradient(tf.exp(x))" in held.place.source


@pytest.mark.parametrize("fn", [gallery.stopped_in_while, gallery.stopped_in_cond], ids=lambda fn: fn.__name__)
def test_the_report_lists_what_was_held_inside_loops_and_branches(fn):
    report = gradcheck.check_gradients(fn, [np.abs(X)])
    assert any(h.reason == "stop_gradient" for f in report.findings for h in f.held), report


def test_a_stop_that_does_not_depend_on_what_moves_is_not_held():
    def fn(x):
        return x * tf.stop_gradient(tf.constant([1.0, 2.0], tf.float64))

    traced = trace_function(fn, [X])
    held = hold(traced.program, [a.name for a in traced.program.main.args])
    assert held.names == ()
