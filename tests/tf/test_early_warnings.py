"""Early warnings: each rule has a training that earns it, and is silent on healthy ones."""

import logging

import keras
import numpy as np
import pytest
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
        lines += watch.look(Step(number=k + 1, layers=layers))
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


@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD(0.05, momentum=0.9), keras.optimizers.Adam(0.01)])
def test_a_healthy_training_is_silent(optimizer, caplog):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1)])
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 32, 4)).astype("float32")

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - tf.reduce_sum(x, 1, keepdims=True)) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    watchdog = Watchdog(early_warnings=True)
    watched = watchdog.watch(step)
    with caplog.at_level(logging.WARNING, "gradcheck"):
        losses = [float(watched(batch)) for batch in x]
    assert losses[-1] < losses[0] / 10
    assert (watchdog.trips, caplog.records) == (0, [])


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
