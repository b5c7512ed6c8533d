"""An optimizer beside its reference: where they part, what explains it, and that nothing of the user's is changed."""

import contextlib
import functools
import json
import random
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from gradcheck import OptimizerReport, compare_optimizers
from gradcheck._compare import recording
from gradcheck.optimizers import (
    Adagrad,
    Adam,
    AdamW,
    ExponentialDecay,
    GradientDescent,
    InverseTimeDecay,
    Momentum,
    RMSProp,
    TwoAssignments,
    minibatches,
)

keras, v1 = tf.keras.optimizers, tf.compat.v1.train
RNG = np.random.default_rng(0)
A, Y = RNG.normal(size=(20, 6)), RNG.normal(size=20)
START = RNG.normal(size=6)


class Regression:
    """A small regression with two variables; its gradients have all sizes."""

    def __init__(self, dtype=tf.float32):
        self.dtype = dtype
        self.w, self.b = (
            tf.Variable(tf.constant(START, dtype), name="w"),
            tf.Variable(tf.constant(0.5, dtype), name="b"),
        )

    @property
    def variables(self):
        return [self.w, self.b]

    def loss(self):
        a, y = tf.constant(A, self.dtype), tf.constant(Y, self.dtype)
        return tf.reduce_mean((tf.linalg.matvec(a, self.w) + self.b - y) ** 2)

    def compare(self, optimizer, reference, steps=30):
        return compare_optimizers(optimizer, reference, self.loss, self.variables, steps)


def rows(cases):
    """Parameters of cases; where time is short, every third stands for the rest."""
    return [
        pytest.param(case, id=name, marks=[pytest.mark.slow] if k % 3 else [])
        for k, (name, case) in enumerate(cases.items())
    ]


def test_the_documents_riddle_is_answered():
    w = tf.Variable(2.0, name="w")
    report = compare_optimizers(v1.AdagradOptimizer(0.6), Adagrad(0.6), lambda: (w * 1.0 - 3.0) ** 2, [w], 20)
    assert not report.ok
    assert report.first_apart == 1
    assert [each.text for each in report.explanations] == ["initial accumulator 0.1 instead of 0"]
    assert report.explanation.rule == "Adagrad(0.6, initial_accumulator_value=0.1)"
    assert report.explanation.steps == 20
    (found,) = report.variables
    np.testing.assert_allclose(found.optimizer[:4], [2.0, 2.5926378, 2.816606, 2.9160419], rtol=2.0**-22)
    np.testing.assert_allclose(found.reference[:2], [2.0, 2.6], rtol=2.0**-22)
    assert found.differences[0] == pytest.approx(2.6 - 2.5926378, rel=1e-4)
    assert w.numpy() == 2.0


AGREEING = {
    "v1 gradient descent": lambda: (v1.GradientDescentOptimizer(0.1), GradientDescent(0.1)),
    "v1 momentum": lambda: (v1.MomentumOptimizer(0.1, 0.8), Momentum(0.1, 0.8)),
    "v1 nesterov": lambda: (v1.MomentumOptimizer(0.1, 0.8, use_nesterov=True), Momentum(0.1, 0.8, nesterov=True)),
    "v1 adagrad": lambda: (v1.AdagradOptimizer(0.1), Adagrad(0.1, 0.1, 0.0)),
    "v1 rmsprop": lambda: (v1.RMSPropOptimizer(0.01), RMSProp(0.01, epsilon=1e-10, initial_accumulator_value=1.0)),
    "v1 adam": lambda: (v1.AdamOptimizer(0.01), Adam(0.01, epsilon=1e-8)),
    "keras sgd": lambda: (keras.SGD(0.1), GradientDescent(0.1)),
    "keras momentum": lambda: (keras.SGD(0.1, momentum=0.8), Momentum(0.1, 0.8)),
    "keras nesterov": lambda: (keras.SGD(0.1, momentum=0.8, nesterov=True), Momentum(0.1, 0.8, nesterov=True)),
    "keras adagrad": lambda: (keras.Adagrad(0.1), Adagrad(0.1, 0.1, 1e-7, epsilon_in="root")),
    "keras rmsprop": lambda: (keras.RMSprop(0.01), RMSProp(0.01)),
    "keras adam": lambda: (keras.Adam(0.01), Adam(0.01)),
    "keras adamw": lambda: (keras.AdamW(0.01), AdamW(0.01)),
    "keras loss scale": lambda: (
        keras.LossScaleOptimizer(keras.SGD(0.1, momentum=0.8), initial_scale=64.0, dynamic_growth_steps=4),
        keras.SGD(0.1, momentum=0.8, loss_scale_factor=128.0),
    ),
    "keras and v1": lambda: (keras.SGD(0.1, momentum=0.8), v1.MomentumOptimizer(0.1, 0.8)),
    "rules": lambda: (Momentum(0.1, 0.8, learning_rate_in="update"), Momentum(0.1, 0.8)),
    "a schedule": lambda: (
        keras.SGD(keras.schedules.InverseTimeDecay(0.1, 1, 0.1)), GradientDescent(InverseTimeDecay(0.1, 0.1))
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", rows(AGREEING))
def test_what_differs_by_rounding_only_agrees(make):
    report = Regression().compare(*make())
    assert report.ok, str(report)
    assert report.explanations == ()
    assert report.nearest is None
    assert str(report).startswith("ok: ")


def by_hand(update, start=lambda params: [tf.zeros_like(p) for p in params]):
    """A callable with a rule's contract whose state is a list like the params."""

    def optimizer(params, grads, state):
        state = start(params) if state is None else state
        new = [update(p, g, s) for p, g, s in zip(params, grads, state, strict=True)]
        return [p for p, _ in new], [s for _, s in new]

    return optimizer


def dampened(p, g, v):
    v = 0.9 * v + 0.7 * g
    return p - 0.05 * v, v


def clipping_by_hand(p, g, s):
    return p - 0.1 * tf.clip_by_norm(g, 0.43), s


def decaying_by_hand(p, g, s):
    return p - 0.05 * (g + 0.037 * p), s


def stale_by_hand(p, g, before):
    return p - 0.05 * before, g


def adam_with_epsilon_in_the_root(p, g, state):
    m, v, t = state
    m, v, t = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g, t + 1
    return p - 0.01 * m / (1 - 0.9**t) / tf.sqrt(v / (1 - 0.999**t) + 1e-3), (m, v, t)


def moments(params):
    return [(tf.zeros_like(p), tf.zeros_like(p), 0) for p in params]


class OffByAFactor(keras.SGD):
    """A subclass without a config of its own."""

    def __init__(self, factor, **options):
        super().__init__(**options)
        self.factor = factor

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self.factor)


class AheadOfTime(keras.Adam):
    """Counts a step before it takes it."""

    def update_step(self, gradient, variable, learning_rate):
        self._iterations.assign_add(1)
        super().update_step(gradient, variable, learning_rate)
        self._iterations.assign_sub(1)


class OffByALossScale(keras.Adagrad):
    def update_step(self, gradient, variable, learning_rate):
        super().update_step(128 * gradient, variable, learning_rate)


def adam_of_m_only(p, g, state):
    m, v, t = state
    m, v, t = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g, t + 1
    return p - 0.01 * m / (1 - 0.9**t) / (tf.sqrt(v) + 1e-7), (m, v, t)


def decaying_afterwards(p, g, s):
    moved = p - 0.05 * g
    return moved - 0.05 * 0.3 * moved, s


def clipping_afterwards(p, g, v):
    v = 0.9 * v + 0.05 * g
    return p - tf.clip_by_value(v, -0.02, 0.02), v


def without_decay_of(name):
    optimizer = keras.AdamW(0.01, weight_decay=0.2)
    optimizer.exclude_from_weight_decay(var_names=[name])
    return optimizer


PLANTED = {
    "initial accumulator": (
        lambda: (v1.AdagradOptimizer(0.3), Adagrad(0.3)), "initial accumulator 0.1 instead of 0"),
    "Keras' form": (
        lambda: (keras.Adagrad(0.3), Adagrad(0.3, epsilon=1e-5)),
        "initial accumulator 0.1 instead of 0 and epsilon 1e-07 instead of 1e-05 and epsilon in the root instead of "
        "the denominator, as Keras has it"),
    "another initial accumulator": (
        lambda: (v1.RMSPropOptimizer(0.02, epsilon=1e-7), RMSProp(0.02)), "initial accumulator 1 instead of 0"),
    "epsilon's size": (lambda: (Adam(0.01, epsilon=2e-3), keras.Adam(0.01)), "epsilon 0.002 instead of 1e-07"),
    "epsilon in the root": (
        lambda: (by_hand(adam_with_epsilon_in_the_root, moments), Adam(0.01, epsilon=1e-3)),
        "epsilon in the corrected root instead of the uncorrected denominator"),
    "learning rate in the update": (
        lambda: (Momentum(ExponentialDecay(0.1, 0.9), 0.8, learning_rate_in="update"),
                 keras.SGD(keras.schedules.ExponentialDecay(0.1, 1, 0.9), momentum=0.8)),
        "the learning rate in the update of momentum instead of the velocity"),
    "nesterov": (
        lambda: (keras.SGD(0.05, momentum=0.9, nesterov=True), v1.MomentumOptimizer(0.05, 0.9)),
        "Nesterov's momentum instead of classical momentum"),
    "dampening": (lambda: (by_hand(dampened), Momentum(0.05, 0.9)), "dampening 0.3 instead of 0"),
    "bias correction": (lambda: (Adam(0.01, bias_correction=False), keras.Adam(0.01)), "no bias correction"),
    "decay of the rate": (
        lambda: (keras.SGD(keras.schedules.InverseTimeDecay(0.1, 1, 0.031)), keras.SGD(0.1)),
        "learning rate that decays as 0.1 / (1 + 0.031 step)"),
    "weight decay": (
        lambda: (by_hand(decaying_by_hand), GradientDescent(0.05)), "weight decay 0.037 into the gradient"),
    "decoupled weight decay": (
        lambda: (keras.AdamW(0.01, weight_decay=0.021), Adam(0.01)), "weight decay 0.021 into the weights"),
    "clipping by value": (
        lambda: (keras.SGD(0.1, clipvalue=0.17), keras.SGD(0.1)), "gradients clipped by value at 0.17"),
    "clipping by norm": (
        lambda: (by_hand(clipping_by_hand), GradientDescent(0.1)), "gradients clipped by norm at 0.43"),
    "clipping by global norm": (
        lambda: (keras.SGD(0.1, momentum=0.5, global_clipnorm=0.61), Momentum(0.1, 0.5)),
        "gradients clipped by global norm at 0.61"),
    "no clipping": (lambda: (keras.SGD(0.1), keras.SGD(0.1, clipnorm=0.5)), "no clipping"),
    "a constant factor": (
        lambda: (OffByAFactor(1.3, learning_rate=0.1), keras.SGD(0.1)),
        "learning rate 0.13 instead of 0.1, 1.3 times it"),
    "a factor of a schedule": (
        lambda: (OffByAFactor(0.7, learning_rate=keras.schedules.InverseTimeDecay(0.1, 1, 0.1)),
                 GradientDescent(InverseTimeDecay(0.1, 0.1))),
        "learning rate off by the constant factor 0.7"),
    "a stale gradient": (
        lambda: (by_hand(stale_by_hand), GradientDescent(0.05)),
        "a gradient that is stale by one step, and zero at first"),
    "counted one ahead": (
        lambda: (AheadOfTime(0.01), keras.Adam(0.01)), "steps counted one ahead"),
    "only m is corrected": (lambda: (by_hand(adam_of_m_only, moments), Adam(0.01)), "bias correction of m only"),
    "decay after the step": (
        lambda: (by_hand(decaying_afterwards), keras.SGD(0.05, weight_decay=0.3)),
        "no weight decay and weight decay 0.3 into the weights, afterwards"),
    "clipped steps": (
        lambda: (by_hand(clipping_afterwards), keras.SGD(0.05, momentum=0.9)), "steps clipped by value at 0.02"),
    "a velocity that starts elsewhere": (
        lambda: (by_hand(lambda p, g, v: (p - (0.9 * v + 0.05 * g), 0.9 * v + 0.05 * g),
                         lambda params: [0.02 * tf.ones_like(p) for p in params]), Momentum(0.05, 0.9)),
        "initial velocity 0.02 instead of 0"),
    "a loss scale left in": (
        lambda: (OffByALossScale(0.05), keras.Adagrad(0.05)), "gradients 128 times as large"),
    "the wrong sign": (
        lambda: (by_hand(lambda p, g, s: (p + 0.001 * g, s)), keras.SGD(0.001)), "gradients of the opposite sign"),
    "a mean of gradients": (
        lambda: (by_hand(lambda p, g, m: (p - 0.05 * (0.8 * m + 0.2 * g), 0.8 * m + 0.2 * g)), GradientDescent(0.05)),
        "a moving average of the gradient, with 0.8, in its place"),
    "gathered gradients": (
        lambda: (keras.Adam(0.01, gradient_accumulation_steps=4), keras.Adam(0.01)),
        "gradients gathered over 4 steps, and their mean taken"),
    "AMSGrad": (
        lambda: (keras.Adam(0.05, beta_2=0.9, amsgrad=True), keras.Adam(0.05, beta_2=0.9)),
        "the largest v so far (AMSGrad) instead of v"),
    "no AMSGrad": (
        lambda: (keras.Adam(0.05, beta_2=0.9), keras.Adam(0.05, beta_2=0.9, amsgrad=True)),
        "v instead of the largest v so far (AMSGrad)"),
    "centered": (
        lambda: (v1.RMSPropOptimizer(0.01, centered=True), v1.RMSPropOptimizer(0.01)),
        "centered squares instead of plain ones"),
    "one variable has no decay": (
        lambda: (without_decay_of("b"), keras.AdamW(0.01, weight_decay=0.2)), "no weight decay, in b only"),
    "one variable has another rate": (
        lambda: (lambda params, grads, state: (
            [p - rate * g for p, g, rate in zip(params, grads, (0.05, 0.06), strict=True)], state),
         GradientDescent(0.05)), "learning rate 0.06 instead of 0.05, 1.2 times it, in b only"),
    "the wrong order": (
        lambda: (TwoAssignments(Adam(0.01, epsilon=0.1), "params"), Adam(0.01, epsilon=0.1)),
        "the weights assigned before the state"),
    "two at once": (
        lambda: (keras.SGD(0.057, momentum=0.9, nesterov=True), Momentum(0.05, 0.9)),
        "Nesterov's momentum instead of classical momentum and learning rate 0.057 instead of 0.05, 1.14 times it"),
    "two numbers": (
        lambda: (keras.Adam(0.01, beta_1=0.8, beta_2=0.95), Adam(0.01)),
        "beta 1 0.8 instead of 0.9 and beta 2 0.95 instead of 0.999"),
}  # fmt: skip


@pytest.mark.parametrize("case", rows(PLANTED))
@pytest.mark.slow
def test_a_planted_deviation_is_found(case):
    make, text = case
    report = Regression().compare(*make())
    assert not report.ok
    assert text in [each.text for each in report.explanations], str(report)
    assert text in str(report)
    assert all(each.excess <= 1 and each.steps == report.steps for each in report.explanations)


def counted(update):
    def optimizer(params, grads, state):
        count = (state or 0) + 1
        return [update(p, g, count) for p, g in zip(params, grads, strict=True)], count

    return optimizer


def averaging(params, grads, state):
    before = grads if state is None else state
    return [p - 0.05 * (g + 0.5 * q) for p, g, q in zip(params, grads, before, strict=True)], grads


def other_rates(params, grads, state):
    return [p - rate * g for p, g, rate in zip(params, grads, (0.04, 0.06), strict=True)], state


UNEXPLAINABLE = {
    "a wobbling rate": lambda: counted(lambda p, g, k: p - 0.05 * (1 + 1e-4 * np.sin(7.0 * k)) * g),
    "only signs": lambda: counted(lambda p, g, k: p - 0.05 * tf.sign(g)),
    "every seventh step left out": lambda: counted(lambda p, g, k: p - 0.05 * g if k % 7 else p),
    "other rates for all variables": lambda: other_rates,
    "weights on a grid": lambda: counted(lambda p, g, k: tf.round(1e3 * (p - 0.05 * g)) / 1e3),
    "a rate that drops": lambda: counted(lambda p, g, k: p - (0.05 if k < 20 else 0.02) * g),
    "one step off by little": lambda: counted(lambda p, g, k: p - 0.05 * g + (1e-5 if k == 9 else 0.0)),
    "the mean of two gradients": lambda: averaging,
}


@pytest.mark.parametrize("make", rows(UNEXPLAINABLE))
def test_what_nothing_explains_is_not_explained(make):
    report = Regression().compare(make(), GradientDescent(0.05))
    assert not report.ok
    assert report.explanations == (), str(report)
    assert report.nearest is not None
    assert report.nearest.excess > 1
    assert "explained   by nothing that was tried" in str(report)
    assert "nearest     " in str(report)


def test_the_first_step_apart_is_the_step_of_the_deviation():
    drop = counted(lambda p, g, k: p - (0.05 if k < 20 else 0.02) * g)
    assert Regression().compare(drop, GradientDescent(0.05)).first_apart == 20


def adam_by_hand(rate=0.01, number=lambda x, p: x, corrected=lambda beta, t, p: 1 - beta**t):
    """`number` says how a callable holds its hyperparameters."""

    def update(p, g, state):
        m, v, t = state
        b1, b2, t = number(0.9, p), number(0.999, p), t + 1
        m, v = b1 * m + number(0.1, p) * g, b2 * v + number(0.001, p) * g * g
        below = tf.sqrt(v / corrected(0.999, t, p)) + 1e-7 / np.sqrt(1 - 0.999**t)
        return p - rate * m / corrected(0.9, t, p) / below, (m, v, t)

    return by_hand(update, moments)


OFF = 1 + 1e-5
SMALL = {
    "Keras' Adam": (lambda: (keras.Adam(0.01 * OFF), Adam(0.01)), "learning rate 0.0100001 instead of 0.01"),
    "v1 Adam": (lambda: (v1.AdamOptimizer(0.01 * OFF), v1.AdamOptimizer(0.01)), "learning rate 0.0100001 instead of"),
    "Adam by hand": (lambda: (adam_by_hand(0.01 * OFF), keras.Adam(0.01)), "learning rate 0.0100001 instead of 0.01"),
    "Keras' RMSprop": (lambda: (RMSProp(0.01 / OFF), keras.RMSprop(0.01)), "learning rate 0.0099999 instead of 0.01"),
    "a millionth more": (
        lambda: (GradientDescent(0.1 * (1 + 1e-6)), GradientDescent(0.1)),
        "learning rate 0.1000001 instead of 0.1, 1.000001 times it"),
    "a millionth less": (
        lambda: (GradientDescent(0.1 * (1 - 1e-6)), GradientDescent(0.1)), "learning rate 0.0999999 instead of 0.1"),
    "Adam's epsilon": (lambda: (keras.Adam(0.01, epsilon=1e-6), keras.Adam(0.01)), "epsilon 1e-06 instead of 1e-07"),
    "AMSGrad, late": (
        lambda: (keras.Adam(0.01, amsgrad=True), Adam(0.01)), "the largest v so far (AMSGrad) instead of v"),
    "in bfloat16": (
        lambda: (keras.SGD(0.01, momentum=0.9001), Momentum(0.01, 0.9)), "momentum 0.9001 instead of 0.9", tf.bfloat16),
}  # fmt: skip


@pytest.mark.parametrize("case", rows(SMALL))
@pytest.mark.slow
def test_what_float32_would_hide_is_seen_in_float64_and_found(case):
    make, text, *dtype = case
    report = Regression(*dtype).compare(*make())
    assert not report.ok
    assert report.explanation.text.startswith(text), str(report)
    assert all(v.in_float64 for v in report.variables)
    assert " in float64, allowed " in str(report)


class Falling(keras.schedules.LearningRateSchedule):
    """Computes in float32, whatever it is given."""

    def __call__(self, step):
        return 0.1 / (1 + 0.1 * tf.cast(step, tf.float32))


def held(x, p):
    return tf.cast(x, p.dtype)  # through float32


FALLING = keras.schedules.ExponentialDecay(0.1, 10, 0.9)
HARMLESS = {
    "a rate one unit of float32 off": lambda: (
        keras.Adam(float(np.nextafter(np.float32(0.01), np.float32(1)))), Adam(0.01)),
    "numbers held in float32": lambda: (adam_by_hand(number=held), keras.Adam(0.01)),
    "the reference's numbers held in float32": lambda: (keras.Adam(0.01), adam_by_hand(number=held)),
    "a correction in float32": lambda: (
        adam_by_hand(corrected=lambda beta, t, p: tf.cast(1 - tf.constant(beta) ** t, p.dtype)), Adam(0.01)),
    "a schedule in float32": lambda: (counted(lambda p, g, k: p - float(FALLING(k - 1)) * g), keras.SGD(FALLING)),
    "a schedule that knows float32 only": lambda: (keras.SGD(Falling()), GradientDescent(InverseTimeDecay(0.1, 0.1))),
    "NumPy": lambda: (
        counted(lambda p, g, k: tf.constant(p.numpy() - p.numpy().dtype.type(0.1) * g.numpy())), keras.SGD(0.1)),
    "neither is known": lambda: (adam_by_hand(number=held), adam_by_hand()),
}  # fmt: skip


@pytest.mark.parametrize("make", rows(HARMLESS))
def test_hyperparameters_in_float32_are_rounding(make):
    report = Regression().compare(*make())
    assert report.ok, str(report)


def test_a_run_that_does_not_follow_its_own_rule_in_a_narrow_dtype_is_said():
    """In bfloat16, 0.999 is 1: Keras' Adam corrects the bias by 0, and stays where it is."""
    report = Regression(tf.bfloat16).compare(keras.Adam(0.01), Adam(0.01), steps=5)
    (note,) = report.notes
    assert re.fullmatch(
        r"in the variables' own dtype, Adam does not follow its float64 run, whose weights move by 5\.\de-02: they are "
        r"5\.\de-02 apart",
        note,
    ), note


def test_what_is_not_judged_in_float64_says_why():
    notes = Regression().compare(adam_by_hand(), adam_by_hand(), steps=3).notes
    assert notes == (
        "neither is known as a rule, nor what rounding its hyperparameters moves: judged were the runs in the "
        "variables' own dtype, which show less",
    )


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32, tf.float16, tf.bfloat16], ids=lambda d: d.name)
def test_another_order_of_the_same_operations_is_rounding_in_any_dtype(dtype):
    def reordered(p, g, v):
        v = (v - g / 8) * 0.75 - g / 4 + 0.09375 * g
        return v + p, v

    for optimizer in (by_hand(reordered), Momentum(0.25, 0.75, learning_rate_in="update")):
        report = Regression(dtype).compare(optimizer, Momentum(0.25, 0.75))
        assert report.ok, str(report)


def test_what_keras_rounds_to_float32_is_seen_on_float64_weights():
    report = Regression(tf.float64).compare(keras.SGD(0.1), GradientDescent(0.1))
    assert not report.ok
    texts = [each.text for each in report.explanations]
    assert "hyperparameters rounded to float32 as factors" in texts
    assert Regression(tf.float64).compare(keras.SGD(0.125), GradientDescent(0.125)).ok


def test_too_few_observations_claim_nothing_that_was_fitted():
    w = tf.Variable(2.0)
    report = compare_optimizers(GradientDescent(0.2), GradientDescent(0.1), lambda: (w - 3.0) ** 2, [w], 2)
    assert not report.ok
    assert not any("learning rate" in each.text for each in report.explanations)


def test_an_optimizer_that_runs_in_float32_only_is_still_judged():
    def bound(params, grads, state):
        return [tf.ensure_shape(p - tf.constant(0.1) * g, p.shape) for p, g in zip(params, grads, strict=True)], state

    report = Regression().compare(bound, GradientDescent(0.1))
    assert report.ok
    assert report.notes == (
        "bound could not be run in float64: its rounding is taken from the other's",
        "judged were the runs in the variables' own dtype, which show less",
    )
    report = Regression().compare(bound, GradientDescent(0.11))
    assert [each.text for each in report.explanations] == ["learning rate 0.1 instead of 0.11, 0.909091 times it"]


def test_data_that_the_loss_draws_are_the_same_for_both():
    x, w = np.linspace(-1, 1, 30), tf.Variable([0.5, 0.5])
    rows = np.stack([x, x**2, 3 * x - 1], axis=1).astype(np.float32)

    def compare(optimizer):
        batches = minibatches(rows, 4, seed=0, epochs=9)

        def loss():
            batch = next(batches)
            return tf.reduce_mean((tf.linalg.matvec(batch[:, :2], w) - batch[:, 2]) ** 2)

        return compare_optimizers(optimizer, Adagrad(0.2), loss, [w], 60)

    assert compare(Adagrad(0.2)).ok
    assert compare(keras.Adagrad(0.2)).explanation.text == "initial accumulator 0.1 instead of 0"


def test_sparse_gradients_and_variables_without_a_gradient_are_compared():
    table, unused = tf.Variable(RNG.normal(size=(7, 3)).astype(np.float32)), tf.Variable([1.0])
    drawn = iter(RNG.integers(0, 7, size=(200, 4)))

    def loss():
        return tf.reduce_sum(tf.gather(table, next(drawn)) ** 2)

    report = compare_optimizers(v1.AdagradOptimizer(0.1), Adagrad(0.1, 0.1, 0.0), loss, [table, unused], 25)
    assert report.ok, str(report)
    report = compare_optimizers(v1.AdagradOptimizer(0.1), Adagrad(0.1), loss, [table, unused], 25)
    assert report.explanation.text == "initial accumulator 0.1 instead of 0"
    decaying = keras.SGD(0.1, weight_decay=0.25)  # which leaves a variable alone that has no gradient
    report = compare_optimizers(decaying, keras.SGD(0.1), loss, [table, unused], 25)
    assert "weight decay 0.25 into the weights" in [each.text for each in report.explanations]


def test_a_sample_of_many_entries_is_recorded(monkeypatch):
    monkeypatch.setattr(recording, "MOST_KEPT", 100)
    report = Regression().compare(keras.SGD(0.1, clipnorm=0.5), GradientDescent(0.1), steps=25)
    assert report.explanation.text == "gradients clipped by norm at 0.5"
    assert any("tried on 4 of 7 entries" in note for note in report.notes)


def test_a_gradient_that_is_not_finite_ends_the_comparison():
    w = tf.Variable([1.0])
    report = compare_optimizers(GradientDescent(1.0), GradientDescent(1.0), lambda: tf.sqrt(w[0]) + w[0] / 2, [w], 9)
    assert report.steps < 9
    assert re.search(r"stopped before step \d, where the gradient is not finite", report.notes[0])


def test_a_reference_that_is_no_known_rule_is_not_searched():
    report = Regression().compare(GradientDescent(0.1), by_hand(stale_by_hand))
    assert not report.ok
    assert report.notes == ("no explanation is searched for: optimizer is not known as a rule",)


# Nothing of the user's is changed.


def state_of(optimizer):
    variables = optimizer.variables if isinstance(optimizer, keras.Optimizer) else optimizer.variables()
    return [v.numpy().tobytes() for v in variables]


@pytest.mark.parametrize("make", [lambda: keras.Adam(0.1), lambda: v1.AdamOptimizer(0.1)], ids=["keras", "v1"])
@pytest.mark.slow
def test_an_optimizer_in_use_goes_on_from_its_state_and_keeps_it(make):
    model = Regression()

    def train():
        with tf.GradientTape() as tape:
            loss = model.loss()
        optimizer.apply_gradients(zip(tape.gradient(loss, model.variables), model.variables, strict=True))

    optimizer = make()
    for _ in range(3):
        train()
    state, weights = state_of(optimizer), [v.numpy().tobytes() for v in model.variables]
    report = model.compare(optimizer, Adam(0.1), steps=5)
    assert not report.ok  # the reference starts afresh
    assert state_of(optimizer) == state
    assert [v.numpy().tobytes() for v in model.variables] == weights
    train()
    assert [v.numpy().tobytes() for v in model.variables] != weights
    if isinstance(optimizer, keras.Optimizer):
        assert "the optimizer had made 3 steps before and went on from there" in report.notes


def test_an_optimizer_that_is_new_stays_new():
    theirs, older, model = keras.Adam(0.1), v1.AdamOptimizer(0.1), Regression()
    model.compare(theirs, older, steps=3)
    assert not theirs.built
    assert len(theirs.variables) == 2
    assert older.variables() == []
    other = tf.Variable([1.0])
    theirs.apply([tf.constant([1.0])], [other])
    older.apply_gradients([(tf.constant([1.0]), other)])


def test_variables_of_keras_with_their_layers_are_compared_and_kept():
    model = tf.keras.Sequential(
        [tf.keras.Input((6,)), tf.keras.layers.BatchNormalization(), tf.keras.layers.Dropout(0.5, seed=1),
         tf.keras.layers.Dense(1, name="dense")]
    )  # fmt: skip
    a = tf.constant(A, tf.float32)

    def loss():
        return tf.reduce_mean(model(a, training=True) ** 2)

    before = [v.numpy().tobytes() for v in model.variables]
    seeds = model.layers[1].seed_generator.state.numpy().tobytes()
    report = compare_optimizers(keras.SGD(0.1), GradientDescent(0.1), loss, model.trainable_variables, 4)
    assert report.ok, str(report)
    assert [v.variable for v in report.variables][-1].endswith("dense/bias")
    assert [v.numpy().tobytes() for v in model.variables] == before
    assert model.layers[1].seed_generator.state.numpy().tobytes() == seeds


def test_random_states_are_as_they_were():
    def states():
        generator = tf.random.get_global_generator()
        return np.random.get_state()[1].tobytes(), random.getstate(), generator.state.numpy().tobytes()

    w = tf.Variable(1.0)

    def loss():
        np.random.normal()
        random.random()
        return w * tf.random.get_global_generator().normal([]) + w * tf.random.normal([])

    tf.random.set_seed(3)
    first = tf.random.normal([]).numpy()
    second = tf.random.normal([]).numpy()
    tf.random.set_seed(3)
    assert tf.random.normal([]).numpy() == first
    before = states()
    compare_optimizers(GradientDescent(0.1), GradientDescent(0.1), loss, w, 3)
    assert states() == before
    assert tf.random.normal([]).numpy() == second


class OwnError(Exception):
    pass


def test_after_an_error_in_the_loss_the_variables_are_as_before():
    model, calls = Regression(), []

    def loss():
        calls.append(None)
        if len(calls) == 3:
            raise OwnError
        return model.loss()

    before = [v.numpy().tobytes() for v in model.variables]
    with pytest.raises(OwnError):
        compare_optimizers(keras.SGD(0.1), GradientDescent(0.1), loss, model.variables, 5)
    assert [v.numpy().tobytes() for v in model.variables] == before


class Counting(keras.SGD):
    def __init__(self, **options):
        super().__init__(**options)
        self.seen = 0

    def update_step(self, gradient, variable, learning_rate):
        self.seen += 1
        super().update_step(gradient, variable, learning_rate / self.seen)


def in_a_closure():
    velocities = {}

    def optimizer(params, grads, state):
        for i, g in enumerate(grads):
            velocities[i] = 0.9 * velocities.get(i, 0.0) + g
        return [p - 0.1 * velocities[i] for i, p in enumerate(params)], state

    return optimizer


def noisy(params, grads, state):
    return [p - 0.1 * g * tf.random.uniform([]) for p, g in zip(params, grads, strict=True)], state


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Counting(learning_rate=0.1),
         "Counting keeps state outside its variables: a step changed its attribute 'seen'; hold it in a variable made "
         "by add_variable, so that it can be restored"),
        (in_a_closure,
         "optimizer does not give the same weights twice from the same start and the same gradients: it keeps state "
         "outside its variables, or draws random numbers; hold state in variables (a callable: in the state that it is "
         "given and gives)"),
        (lambda: noisy,
         "noisy does not give the same weights twice from the same start and the same gradients: it keeps state "
         "outside its variables, or draws random numbers; hold state in variables (a callable: in the state that it is "
         "given and gives)"),
    ],
    ids=["attribute", "closure", "noise"],
)  # fmt: skip
def test_state_outside_of_variables_is_refused_and_nothing_is_changed(make, message):
    model, optimizer = Regression(), make()
    before = [v.numpy().tobytes() for v in model.variables]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        model.compare(optimizer, GradientDescent(0.1))
    assert [v.numpy().tobytes() for v in model.variables] == before
    assert getattr(optimizer, "seen", 0) == 0


def never():
    raise AssertionError("called before the misuse was seen")


W = tf.Variable([1.0])
GOOD = GradientDescent(0.1)


def by_two(params, grads):
    return params, grads


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0.1, GOOD, never, W, 3), TypeError,
         "optimizer must be a Keras 3 optimizer, one of tf.compat.v1.train, a rule of gradcheck.optimizers, or a "
         "callable of (params, grads, state) that gives (params, state); got float"),
        ((GOOD, by_two, never, W, 3), TypeError,
         "reference must take (params, grads, state), where state is None at first, and give (params, state); by_two "
         "takes (params, grads)"),
        ((GOOD, Adam, never, W, 3), TypeError, "reference must be an optimizer, not a class of them: write Adam(...)"),
        ((GOOD, GOOD, tf.constant(1.0), W, 3), TypeError,
         "loss must be a callable without arguments that gives the loss; got EagerTensor"),
        ((GOOD, GOOD, never, [], 3), ValueError, "variables must hold at least one variable; got []"),
        ((GOOD, GOOD, never, [W, np.ones(2)], 3), TypeError,
         "variables must be variables of TensorFlow or Keras, which loss reads; number 1 is ndarray: write "
         "tf.Variable(...)"),
        ((GOOD, GOOD, never, tf.Variable([1]), 3), TypeError,
         "variables must be floating; number 0 has dtype int32"),
        ((GOOD, GOOD, never, [W, W], 3), ValueError, "variables must be different ones; one is there twice"),
        ((GOOD, GOOD, never, W, 0), ValueError, "steps must be at least 1; got steps=0"),
        ((GOOD, GOOD, never, W, 2.0), TypeError, "steps must be an integer; got steps=2.0"),
        ((GOOD, GOOD, lambda: tf.constant(1.0), W, 3), ValueError,
         "loss must depend on the variables; its gradient is None for each of them: it must read the very variables "
         "that are handed over, and compute with TensorFlow"),
        ((GOOD, GOOD, lambda: tf.math.log(W[0] - 1.0), W, 3), ValueError,
         "loss must have a finite gradient at the start; stopped before step 1, where the gradient is not finite"),
        ((lambda p, g, s: p, GOOD, lambda: W[0] ** 2, W, 3), TypeError, "<lambda> must give (params, state); got list"),
        ((lambda p, g, s: ([], s), GOOD, lambda: W[0] ** 2, W, 3), ValueError,
         "<lambda> must give a list of 1 params, as it gets; got 0"),
        ((lambda p, g, s: ([p[0][0]], s), GOOD, lambda: W[0] ** 2, W, 3), ValueError,
         "<lambda> must give params[0] of shape (1,) and dtype float32, as it gets; got shape () and dtype float32"),
    ],
    ids=range(15),
)  # fmt: skip
def test_misuse_says_what_was_asked_and_what_to_write(arguments, error, message):
    before = W.numpy().tolist()
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        compare_optimizers(*arguments)
    assert W.numpy().tolist() == before


# In a graph.


@contextlib.contextmanager
def session_of(use_resource):
    """A graph with a loss of two trained variables and another one, and its session."""
    with tf.Graph().as_default():
        get = functools.partial(v1_variable, use_resource=use_resource)
        w, table = get("w", np.float32([2.0, -1.0])), get("table", np.arange(8, dtype=np.float32).reshape(4, 2))
        scale = get("scale", np.float32(0.5), trainable=False)
        rows = tf.nn.embedding_lookup(table, [1, 2, 1])
        loss = scale * tf.reduce_sum((w - 3) ** 2) + tf.reduce_sum(rows**2)
        trained = v1.AdamOptimizer(0.1, epsilon=1e-3)
        train = trained.minimize(loss, var_list=[w, table])
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            yield loss, [w, table], session, trained, train


def v1_variable(name, value, **options):
    return tf.compat.v1.get_variable(name, initializer=value, **options)


@pytest.mark.parametrize("use_resource", [False, True], ids=["reference variables", "resource variables"])
@pytest.mark.slow
def test_optimizers_of_a_graph_are_compared_and_the_graph_is_only_read(use_resource):
    with session_of(use_resource) as (loss, variables, session, trained, train):
        operations, values = len(loss.graph.get_operations()), session.run(variables)
        report = compare_optimizers(v1.AdagradOptimizer(0.6), Adagrad(0.6), loss, variables, 20)
        assert report.explanation.text == "initial accumulator 0.1 instead of 0"
        assert [v.variable for v in report.variables] == ["w", "table"]
        assert compare_optimizers(v1.MomentumOptimizer(0.1, 0.9), Momentum(0.1, 0.9), lambda: loss, variables, 5).ok
        assert compare_optimizers(trained, v1.AdamOptimizer(0.1, epsilon=1e-3), loss, variables, 5).ok
        for _ in range(3):
            session.run(train)
        report = compare_optimizers(trained, v1.AdamOptimizer(0.1, epsilon=1e-3), loss, variables, 5)
        assert report.first_apart == 1  # it goes on from its slots
        assert not any("float64" in note for note in report.notes)
        found = report.variables[0].optimizer[1:4]
        expected = [(session.run(train), session.run(variables[0]).ravel())[1] for _ in range(3)]
        assert any(np.allclose(found, [row[i] for row in expected], rtol=1e-6) for i in (0, 1))
        assert len(loss.graph.get_operations()) == operations
        np.testing.assert_array_less(0, abs(session.run(variables)[0] - values[0]))  # by `train` alone


def test_what_a_graph_lacks_is_said():
    with tf.Graph().as_default():
        w, fed = v1_variable("w", np.float32([1.0])), tf.compat.v1.placeholder(tf.float32, [], name="fed")
        loss, rate = tf.reduce_sum(w**2), tf.compat.v1.train.exponential_decay(0.1, tf.constant(0) + 1, 10, 0.5)
        with pytest.raises(ValueError, match=r"^compare_optimizers in a tf.Graph reads the variables in its session, "):
            compare_optimizers(GOOD, GOOD, loss, [w], 3)
        with tf.compat.v1.Session() as session:
            with pytest.raises(
                ValueError, match=r"^variables must have values in the session; run tf.compat.v1.global_"
            ):
                compare_optimizers(GOOD, GOOD, loss, [w], 3)
            session.run(tf.compat.v1.global_variables_initializer())
            with pytest.raises(ValueError, match=r"^loss must be computed from variables and constants; 'fed' "):
                compare_optimizers(GOOD, GOOD, loss * fed, [w], 3)
            with pytest.raises(
                TypeError, match=r"^loss must be a tensor of the graph, or a callable that gives one; got"
            ):
                compare_optimizers(GOOD, GOOD, lambda: 1.0, [w], 3)
            with pytest.raises(
                ValueError, match=r"^variables must be of the default graph, as loss is; number 1 is not$"
            ):
                compare_optimizers(GOOD, GOOD, loss, [w, W], 3)
            hidden = tf.compat.v1.Variable(1.0, name="hidden", collections=[])
            with pytest.raises(
                ValueError, match=r"^loss reads 'hidden', which is in no collection of the graph: add it "
            ):
                compare_optimizers(GOOD, GOOD, loss * hidden, [w], 3)
            optimizer = v1.GradientDescentOptimizer(rate * fed)
            message = (
                r"^optimizer must have hyperparameters that are numbers or callables; learning_rate is the tensor "
            )
            with pytest.raises(ValueError, match=message):
                compare_optimizers(optimizer, GOOD, loss, [w], 3)

    @tf.function
    def traced():
        compare_optimizers(GOOD, GOOD, never, W, 3)

    with pytest.raises(ValueError, match=r"compare_optimizers cannot run while a tf.function is traced"):
        traced()


# The report.


def test_the_report_goes_through_json_and_back():
    report = Regression().compare(keras.Adagrad(0.3), Adagrad(0.3), steps=5)
    again = OptimizerReport.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False)))
    assert again == report
    assert str(again) == str(report)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_plot_is_a_picture_file(tmp_path, ending):
    pytest.importorskip("matplotlib")
    report = Regression().compare(keras.Adagrad(0.3), Adagrad(0.3), steps=5)
    path = tmp_path / f"report.{ending}"
    report.plot(path)
    assert path.read_bytes().lstrip().startswith(b"\x89PNG" if ending == "png" else b"<?xml")


def test_two_that_never_differ_can_be_plotted(tmp_path):
    pytest.importorskip("matplotlib")
    report = Regression(tf.float64).compare(GOOD, GOOD, steps=3)
    report.plot(tmp_path / "same.png")
    assert (tmp_path / "same.png").stat().st_size


def test_without_matplotlib_a_plot_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    report = Regression().compare(GOOD, GOOD, steps=2)
    with pytest.raises(ImportError, match=r'^a plot needs matplotlib, (.|\n)*pip install "gradcheck\[plots\]"'):
        report.plot(tmp_path / "never.png")
    assert not list(tmp_path.iterdir())


def test_a_hypothesis_that_gives_no_number_explains_nothing():
    """In float16 an epsilon of 1e-8 is zero: a stale gradient of zero over an accumulator of zero would be NaN."""
    w = tf.Variable(tf.constant([2.0, -1.0, 0.3], tf.float16))
    report = compare_optimizers(keras.Adagrad(0.3), Adagrad(0.3), lambda: tf.reduce_sum((w - 3) ** 2), [w], 20)
    assert not any("stale" in each.text for each in report.explanations)


def test_an_optimizer_that_leaves_the_numbers_is_apart_from_one_that_does_not():
    blowing_up = counted(lambda p, g, k: p - 0.05 * g if k < 4 else p * tf.constant(np.inf, p.dtype))
    report = Regression().compare(blowing_up, GradientDescent(0.05))
    assert report.first_apart == 4
    assert report.explanations == ()
    assert "stopped at step 4, where a weight is not finite" in report.notes
    assert OptimizerReport.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False))) == report


def test_an_optimizer_of_keras_2_is_refused_where_tf_keras_is_that(monkeypatch):
    class Odd:
        """What the class of optimizers is with TF_USE_LEGACY_KERAS."""

    with monkeypatch.context() as patched:
        patched.setattr(tf, "keras", SimpleNamespace(optimizers=SimpleNamespace(Optimizer=Odd)))
        with pytest.raises(TypeError, match=r"must be a Keras 3 optimizer, .* got Odd"):
            compare_optimizers(Odd(), GOOD, never, W, 3)
