"""Loops of many iterations run in one piece up to the one that matters, and give the same report."""

import time

import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck._diagnose import paces
from gradcheck._graph.functions import trace_function
from gradcheck._graph.visit import Value, visit


def birth_at(iteration, n=3000):
    @tf.function
    def fn(a):
        for i in tf.range(n):
            a = a * 1.0001 - 0.0001
            if i == iteration:
                a = tf.math.log(a - a)  # here
        return a

    return fn


@tf.function
def inner_loop(a):
    for i in tf.range(200):
        for j in tf.range(50):
            a = tf.sin(a) + 1.0
            if i == 150 and j == 40:
                a = tf.sqrt(-a)  # here
    return a


@tf.function
def meant_to_be_infinite(a):
    for i in tf.range(300):
        a = a + tf.exp(tf.math.log(a * 0.0))
        if i == 200:
            a = tf.math.log(-a)  # here
    return a


@tf.function
def carries_an_infinity(a):
    lowest = tf.constant(np.inf)
    for i in tf.range(200):
        if i == 150:
            a = tf.math.log(a * 0.0) * 0.0  # here
    return a + 0.0 * tf.cast(tf.math.is_finite(lowest), tf.float32)


@tf.function
def carries_a_bound(a):
    bound = tf.constant([np.inf, 1.0])
    for i in tf.range(200):
        bound = tf.roll(bound, 1, 0)
        if i == 150:
            a = tf.math.log(a * 0.0)  # here
    return a + tf.reduce_min(bound) * 0.0


@tf.function
def backward(a):
    for _ in tf.range(300):
        a = tf.sqrt(a)  # here
    return a


@tf.function
def in_lists(a):
    found = tf.TensorArray(tf.float32, 400)
    for i in tf.range(400):
        found = found.write(i, tf.math.log(a - tf.cast(i, tf.float32)))  # here
    return found.stack()


@pytest.mark.parametrize(
    ("fn", "a", "op", "inside"),
    [
        (birth_at(5), 1.5, "Log", ["iteration 5"]),
        (birth_at(40), 1.5, "Log", ["iteration 40"]),
        (birth_at(2900), 1.5, "Log", ["iteration 2900"]),
        (birth_at(2999), 1.5, "Log", ["iteration 2999"]),
        (inner_loop, 1.0, "Sqrt", ["iteration 150", "iteration 40"]),
        (meant_to_be_infinite, 1.0, "Log", ["iteration 200"]),
        (carries_an_infinity, 1.0, "Log", ["iteration 150"]),
        (carries_a_bound, 1.0, "Log", ["iteration 150"]),
        (backward, 0.0, "SqrtGrad", ["iteration 0"]),
        (in_lists, 300.0, "Log", ["iteration 300"]),
    ],
    ids=[
        "early",
        "soon",
        "late",
        "last",
        "nested",
        "infinite on purpose",
        "an infinity",
        "a bound",
        "backward",
        "lists",
    ],
)
@pytest.mark.slow
def test_the_iteration_is_found(fn, a, op, inside, monkeypatch):
    start = time.process_time()
    report = gradcheck.find_nonfinite(fn, [tf.constant(a)])
    took = time.process_time() - start
    text = str(report)
    assert report.op_type == op, text
    assert report.place.source.endswith("# here"), text
    assert all(word in " > ".join(report.inside) for word in inside), text
    assert took < 20.0
    if op == "SqrtGrad" or fn in (in_lists, meant_to_be_infinite):
        monkeypatch.setattr(paces, "_SHORT", 10**9)
        assert gradcheck.find_nonfinite(fn, [tf.constant(a)]) == report


class Halfway:
    """Passes over iterations 3 to 90."""

    def target(self, loop, path, iteration, state):
        return 90 if iteration == 3 else None

    def watches(self):
        return False

    def arrived(self, before, after, loop, skipped):
        assert skipped in (87, 47)


@pytest.mark.parametrize(("n", "looked_into"), [(100, 13), (50, 3)])
def test_iterations_passed_over_give_what_they_would_have_given(n, looked_into):
    @tf.function
    def fn(a):
        for _ in tf.range(n):
            a = tf.sin(a) * 1.5
        return a

    traced = trace_function(fn, [tf.constant([1.0, 2.0])])
    with_gradient = [*traced.values.values(), tf.ones([2])]
    walk = visit(traced.program, [Value(tf.convert_to_tensor(v)) for v in with_gradient], pace=Halfway())
    seen = []
    while True:
        try:
            seen.append(next(walk))
        except StopIteration as end:
            returned = end.value
            break
    np.testing.assert_allclose(returned[0].tensor, fn(tf.constant([1.0, 2.0])), rtol=1e-6)
    forward = [v for v in seen if v.node.op == "Sin"]
    assert len(forward) == looked_into
