"""Early warnings: each rule has a training that earns it, and is silent on healthy ones."""

import logging

import keras
import numpy as np
import tensorflow as tf

from gradcheck import Watchdog
from gradcheck._report.trip import Layer, Step
from gradcheck._watchdog.early import EarlyWarnings


def said(norms_by_variable, size=1.0):
    """What is said of variables whose changes have these norms, step by step."""
    watch, lines = EarlyWarnings(), []
    for k, norms in enumerate(zip(*norms_by_variable.values(), strict=True)):
        layers = tuple(
            Layer(name=name, norm=norm, ratio=norm / size) for name, norm in zip(norms_by_variable, norms, strict=True)
        )
        lines += watch.look(Step(number=k + 1, layers=layers), {})
    return lines


def test_a_change_that_grows_a_thousandfold_is_exploding_and_said_once():
    norms = [1.0 + 0.1 * (k % 3) for k in range(30)] + [5.0, 30.0, 2000.0, 1e5]
    (line,) = said({"w": norms})
    assert line.startswith("early warning rule=exploding step=33 variable=w: its change is 2e+03")


def test_one_large_step_is_not_exploding():
    assert said({"w": [1.0] * 30 + [5000.0] + [1.0] * 10}) == []


def test_a_change_below_rounding_is_vanishing():
    (line,) = said({"w": [1.0] * 5 + [1e-14] * 25})
    assert line.startswith("early warning rule=vanishing step=25 variable=w")
    assert said({"w": [1.0] * 5 + [1e-9] * 40}) == []


def test_a_variable_that_never_changes_while_another_does():
    (line,) = said({"v": [1.0] * 30, "w": [0.0] * 30})
    assert line == "early warning rule=unchanged step=20 variable=w: it has not changed for 20 steps"
    assert said({"v": [0.0] * 30, "w": [0.0] * 30}) == []
    assert said({"v": [1.0] * 30, "w": ([0.0] * 19 + [1.0]) * 1 + [0.0] * 10}) == []


def dying(gave_by_step):
    """What is said of a rectifier whose units gave something or not, step by step."""
    watch, lines = EarlyWarnings(), []
    for k, gave in enumerate(gave_by_step):
        lines += watch.look(Step(number=k + 1), {"net/relu": np.array(gave, bool)})
    return lines


def test_half_of_the_units_dead_is_said_once_and_fewer_or_resting_ones_are_not():
    (line,) = dying([[1, 1, 1, 1]] * 5 + [[1, 0, 0, 1]] * 30)
    said = "2 of its 4 units have given 0 for all of each batch, for 20 steps"
    assert line == f"early warning rule=dead step=25 layer=net/relu: {said}"
    assert dying([[1, 0, 1, 1]] * 100) == []
    assert dying(([[1, 0, 0, 0]] * 19 + [[1, 1, 1, 1]]) * 5) == []  # each gives something now and then
    assert dying(([[1, 0, 0, 1]] * 15 + [[0, 1, 1, 0]] * 15) * 3) == []  # never half of them at once


def test_a_dead_layer_is_said_in_the_log_and_a_half_sleeping_one_is_not(caplog):
    def trained(bias):
        model = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(8, "relu", name="first"), keras.layers.Dense(1)], name="net"
        )
        model.layers[0].bias.assign(bias)
        optimizer = keras.optimizers.SGD(0.01)
        optimizer.build(model.trainable_variables)

        @tf.function
        def step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x) - x[:, :1]) ** 2)
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

        watched = Watchdog(early_warnings=True).watch(step)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "gradcheck"):
            for x in np.random.default_rng(0).normal(size=(25, 8, 3)).astype("float32"):
                watched(tf.constant(x))
        return [m for r in caplog.records if "rule=dead" in (m := r.getMessage())]

    (said,) = trained([-50.0] * 8)
    assert "layer=net/first: 8 of its 8 units" in said
    assert trained([-50.0] * 3 + [1.0] * 5) == []


def test_a_frozen_weight_is_said_in_the_log(caplog):
    v, w = tf.Variable(1.0, name="v"), tf.Variable(1.0, name="w")

    @tf.function
    def step(x):
        v.assign_add(x)
        w.assign_add(0.0 * x)

    watched = Watchdog(early_warnings=True).watch(step)
    with caplog.at_level(logging.WARNING, "gradcheck"):
        for _ in range(25):
            watched(tf.constant(1.0))
    (record,) = caplog.records
    assert "rule=unchanged step=20 variable=w" in record.getMessage()
